//! test: quantize
//! scheme: int8

// A product takes the scheme, the head as any other; a bias stays as it is.
func.func @packs_products(%x: tensor<?x64xbf16>) -> tensor<?x300xbf16> {
  %w = "sail.weight"() {join = "one", paths = ["fc"]} : () -> tensor<96x64xbf16>
  %b = "sail.weight"() {join = "one", paths = ["bias"]} : () -> tensor<96xbf16>
  %head = "sail.weight"() {join = "one", paths = ["lm_head"]} : () -> tensor<300x96xbf16>
  %y = "sail.linear_bias"(%x, %w, %b) : (tensor<?x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>) -> tensor<?x96xbf16>
  %z = "sail.linear"(%y, %head) : (tensor<?x96xbf16>, tensor<300x96xbf16>) -> tensor<?x300xbf16>
  return %z : tensor<?x300xbf16>
}
// ==>
// %w: int8, as asked for all
// %b: bf16, because no product reads it but `linear_bias`
// %head: int8, as asked for all
// func.func @packs_products(%x: tensor<?x64xbf16>) -> tensor<?x300xbf16> {
//   %w = "sail.weight"() {join = "one", paths = ["fc"]} : () -> !sail.packed<[96, 64], "int8">
//   %b = "sail.weight"() {join = "one", paths = ["bias"]} : () -> tensor<96xbf16>
//   %head = "sail.weight"() {join = "one", paths = ["lm_head"]} : () -> !sail.packed<[300, 96], "int8">
//   %y = "sail.linear_bias"(%x, %w, %b) : (tensor<?x64xbf16>, !sail.packed<[96, 64], "int8">, tensor<96xbf16>) -> tensor<?x96xbf16>
//   %z = "sail.linear"(%y, %head) : (tensor<?x96xbf16>, !sail.packed<[300, 96], "int8">) -> tensor<?x300xbf16>
//   return %z : tensor<?x300xbf16>
// }

// -----

// A router stays bf16, fused with its choice or not.
func.func @keeps_routers(%x: tensor<?x64xbf16>) -> (tensor<?x2xi32>, tensor<?x3xi32>) {
  %w = "sail.weight"() {join = "one", paths = ["router.0"]} : () -> tensor<9x64xbf16>
  %v = "sail.weight"() {join = "one", paths = ["router.1"]} : () -> tensor<7x64xbf16>
  %ids, %weights = "sail.linear_route"(%x, %w) {renormalize = true, top_k = 2 : i64} : (tensor<?x64xbf16>, tensor<9x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %logits = "sail.linear"(%x, %v) : (tensor<?x64xbf16>, tensor<7x64xbf16>) -> tensor<?x7xbf16>
  %others, %more = "sail.route"(%logits) {renormalize = true, top_k = 3 : i64} : (tensor<?x7xbf16>) -> (tensor<?x3xi32>, tensor<?x3xbf16>)
  return %ids, %others : tensor<?x2xi32>, tensor<?x3xi32>
}
// ==>
// %w: bf16, because a small error in a router's logits sends a token to other experts
// %v: bf16, because a small error in a router's logits sends a token to other experts
// func.func @keeps_routers(%x: tensor<?x64xbf16>) -> (tensor<?x2xi32>, tensor<?x3xi32>) {
//   %w = "sail.weight"() {join = "one", paths = ["router.0"]} : () -> !sail.packed<[9, 64], "bf16">
//   %v = "sail.weight"() {join = "one", paths = ["router.1"]} : () -> !sail.packed<[7, 64], "bf16">
//   %ids:2 = "sail.linear_route"(%x, %w) {renormalize = true, top_k = 2 : i64} : (tensor<?x64xbf16>, !sail.packed<[9, 64], "bf16">) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
//   %logits = "sail.linear"(%x, %v) : (tensor<?x64xbf16>, !sail.packed<[7, 64], "bf16">) -> tensor<?x7xbf16>
//   %others:2 = "sail.route"(%logits) {renormalize = true, top_k = 3 : i64} : (tensor<?x7xbf16>) -> (tensor<?x3xi32>, tensor<?x3xbf16>)
//   return %ids#0, %others#0 : tensor<?x2xi32>, tensor<?x3xi32>
// }

// -----

// The product of pixels stays bf16, fused with its norm or not.
func.func @keeps_the_first_product(%pixels: tensor<?x3x28x28xbf16>) -> (tensor<?x4x40xbf16>, tensor<?x4x24xbf16>) {
  %w = "sail.weight"() {join = "one", paths = ["proj.0"]} : () -> tensor<40x3x14x14xbf16>
  %b = "sail.weight"() {join = "one", paths = ["bias.0"]} : () -> tensor<40xbf16>
  %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<40xbf16>
  %positions = "sail.weight"() {join = "one", paths = ["positions"]} : () -> tensor<4x40xbf16>
  %v = "sail.weight"() {join = "one", paths = ["proj.1"]} : () -> tensor<24x588xbf16>
  %c = "sail.weight"() {join = "one", paths = ["bias.1"]} : () -> tensor<24xbf16>
  %x = "sail.patch_embed"(%pixels, %w, %b, %norm, %positions) {eps = 1.000000e-05 : f64, patch = 14 : i64} : (tensor<?x3x28x28xbf16>, tensor<40x3x14x14xbf16>, tensor<40xbf16>, tensor<40xbf16>, tensor<4x40xbf16>) -> tensor<?x4x40xbf16>
  %patches = "sail.patches"(%pixels) {patch = 14 : i64} : (tensor<?x3x28x28xbf16>) -> tensor<?x4x588xbf16>
  %y = "sail.linear_bias"(%patches, %v, %c) : (tensor<?x4x588xbf16>, tensor<24x588xbf16>, tensor<24xbf16>) -> tensor<?x4x24xbf16>
  return %x, %y : tensor<?x4x40xbf16>, tensor<?x4x24xbf16>
}
// ==>
// %w: bf16, because everything that is seen passes through the product of pixels
// %b: bf16, because no product reads it but `patch_embed`
// %norm: bf16, because no product reads it but `patch_embed`
// %positions: bf16, because no product reads it but `patch_embed`
// %v: bf16, because everything that is seen passes through the product of pixels
// %c: bf16, because no product reads it but `linear_bias`
// func.func @keeps_the_first_product(%pixels: tensor<?x3x28x28xbf16>) -> (tensor<?x4x40xbf16>, tensor<?x4x24xbf16>) {
//   %w = "sail.weight"() {join = "one", paths = ["proj.0"]} : () -> !sail.packed<[40, 3, 14, 14], "bf16">
//   %b = "sail.weight"() {join = "one", paths = ["bias.0"]} : () -> tensor<40xbf16>
//   %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<40xbf16>
//   %positions = "sail.weight"() {join = "one", paths = ["positions"]} : () -> tensor<4x40xbf16>
//   %v = "sail.weight"() {join = "one", paths = ["proj.1"]} : () -> !sail.packed<[24, 588], "bf16">
//   %c = "sail.weight"() {join = "one", paths = ["bias.1"]} : () -> tensor<24xbf16>
//   %x = "sail.patch_embed"(%pixels, %w, %b, %norm, %positions) {eps = 1.000000e-05 : f64, patch = 14 : i64} : (tensor<?x3x28x28xbf16>, !sail.packed<[40, 3, 14, 14], "bf16">, tensor<40xbf16>, tensor<40xbf16>, tensor<4x40xbf16>) -> tensor<?x4x40xbf16>
//   %patches = "sail.patches"(%pixels) {patch = 14 : i64} : (tensor<?x3x28x28xbf16>) -> tensor<?x4x588xbf16>
//   %y = "sail.linear_bias"(%patches, %v, %c) : (tensor<?x4x588xbf16>, !sail.packed<[24, 588], "bf16">, tensor<24xbf16>) -> tensor<?x4x24xbf16>
//   return %x, %y : tensor<?x4x40xbf16>, tensor<?x4x24xbf16>
// }
