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
// %table: bf16, because no product reads it but `embed`
// %norm: bf16, because no product reads it but `rms_norm`
// %w: bf16, as asked for all
// %b: bf16, because no product reads it but `linear_bias`
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

// The embedding table is also the head: one copy, since rows can be looked up in bf16 panels.
func.func @packs_a_table_that_is_the_head(%ids: tensor<?xi32>) -> tensor<?x300xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["embed_tokens"]} : () -> tensor<300x64xbf16>
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<300x64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.linear"(%x, %table) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
  return %y : tensor<?x300xbf16>
}
// ==>
// %table: bf16, as asked for all
// func.func @packs_a_table_that_is_the_head(%ids: tensor<?xi32>) -> tensor<?x300xbf16> {
//   %table = "sail.weight"() {join = "one", paths = ["embed_tokens"]} : () -> !sail.packed<[300, 64], "bf16">
//   %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, !sail.packed<[300, 64], "bf16">) -> tensor<?x64xbf16>
//   %y = "sail.linear"(%x, %table) : (tensor<?x64xbf16>, !sail.packed<[300, 64], "bf16">) -> tensor<?x300xbf16>
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
// %norm: bf16, because no product reads it but `norm_gate_up_silu`
// %w: bf16, as asked for all
// func.func @packs_below_a_norm(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
//   %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<64xbf16>
//   %w = "sail.weight"() {join = "interleave", paths = ["gate", "up"]} : () -> !sail.packed<[192, 64], "bf16">
//   %y = "sail.norm_gate_up_silu"(%x, %norm, %w) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>, !sail.packed<[192, 64], "bf16">) -> tensor<?x96xbf16>
//   return %y : tensor<?x96xbf16>
// }

// -----

// Positions are added element by element, out of rows: the product has a packed copy of its own.
func.func @keeps_positions_beside_a_product(%x: tensor<?x300x64xbf16>) -> tensor<?x300x300xbf16> {
  %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> tensor<300x64xbf16>
  %h = "sail.add_positions"(%x, %w) : (tensor<?x300x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300x64xbf16>
  %y = "sail.linear"(%h, %w) : (tensor<?x300x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300x300xbf16>
  return %y : tensor<?x300x300xbf16>
}
// ==>
// %w: bf16, as asked for all
// %w: a tensor in bf16 as well, because `add_positions` reads it, too, and is no product
// func.func @keeps_positions_beside_a_product(%x: tensor<?x300x64xbf16>) -> tensor<?x300x300xbf16> {
//   %w.packed = "sail.weight"() {join = "one", paths = ["w"]} : () -> !sail.packed<[300, 64], "bf16">
//   %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> tensor<300x64xbf16>
//   %h = "sail.add_positions"(%x, %w) : (tensor<?x300x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300x64xbf16>
//   %y = "sail.linear"(%h, %w.packed) : (tensor<?x300x64xbf16>, !sail.packed<[300, 64], "bf16">) -> tensor<?x300x300xbf16>
//   return %y : tensor<?x300x300xbf16>
// }
