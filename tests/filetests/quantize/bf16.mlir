//! test: quantize

// Weights of products take the scheme; the table, the norm and the bias stay as they are.
func.func @packs_products(%ids: tensor<?xi32>) -> tensor<?x96xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["embed_tokens"]} : () -> tensor<300x64xbf16>
  %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<64xbf16>
  %w = "sail.weight"() {join = "one", paths = ["fc"]} : () -> tensor<96x64xbf16>
  %b = "sail.weight"() {join = "one", paths = ["bias"]} : () -> tensor<96xbf16>
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<300x64xbf16>) -> tensor<?x64xbf16>
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.linear_bias"(%h, %w, %b) : (tensor<?x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==>
// func.func @packs_products(%ids: tensor<?xi32>) -> tensor<?x96xbf16> {
//   %table = "sail.weight"() {join = "one", paths = ["embed_tokens"]} : () -> tensor<300x64xbf16>
//   %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<64xbf16>
//   %w = "sail.weight"() {join = "one", paths = ["fc"]} : () -> !sail.packed<[96, 64], "bf16">
//   %b = "sail.weight"() {join = "one", paths = ["bias"]} : () -> tensor<96xbf16>
//   %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<300x64xbf16>) -> tensor<?x64xbf16>
//   %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//   %y = "sail.linear_bias"(%h, %w, %b) : (tensor<?x64xbf16>, !sail.packed<[96, 64], "bf16">, tensor<96xbf16>) -> tensor<?x96xbf16>
//   return %y : tensor<?x96xbf16>
// }

// -----

// The embedding table is also the head: rows of it are looked up unpacked, the product reads panels.
func.func @keeps_a_table_beside_the_head(%ids: tensor<?xi32>) -> tensor<?x300xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["embed_tokens"]} : () -> tensor<300x64xbf16>
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<300x64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.linear"(%x, %table) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
  return %y : tensor<?x300xbf16>
}
// ==>
// func.func @keeps_a_table_beside_the_head(%ids: tensor<?xi32>) -> tensor<?x300xbf16> {
//   %table.packed = "sail.weight"() {join = "one", paths = ["embed_tokens"]} : () -> !sail.packed<[300, 64], "bf16">
//   %table = "sail.weight"() {join = "one", paths = ["embed_tokens"]} : () -> tensor<300x64xbf16>
//   %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<300x64xbf16>) -> tensor<?x64xbf16>
//   %y = "sail.linear"(%x, %table.packed) : (tensor<?x64xbf16>, !sail.packed<[300, 64], "bf16">) -> tensor<?x300xbf16>
//   return %y : tensor<?x300xbf16>
// }

// -----

// A norm in front changes nothing: the norm's weight stays, the product's is packed.
func.func @packs_below_a_norm(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
  %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<64xbf16>
  %w = "sail.weight"() {join = "interleave", paths = ["gate", "up"]} : () -> tensor<192x64xbf16>
  %y = "sail.norm_gate_up_silu"(%x, %norm, %w) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>, tensor<192x64xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==>
// func.func @packs_below_a_norm(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
//   %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<64xbf16>
//   %w = "sail.weight"() {join = "interleave", paths = ["gate", "up"]} : () -> !sail.packed<[192, 64], "bf16">
//   %y = "sail.norm_gate_up_silu"(%x, %norm, %w) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>, !sail.packed<[192, 64], "bf16">) -> tensor<?x96xbf16>
//   return %y : tensor<?x96xbf16>
// }
