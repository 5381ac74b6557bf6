//! test: quantize
//! scheme: int4
//! recipe: patches:int8

// Pixels stay bf16 whatever a pattern asks, but not when their layer is named.
func.func @knows_pixels_by_name(%pixels: tensor<?x3x4x4xbf16>) -> tensor<?x4x64xbf16> {
  %w = "sail.weight"() {join = "one", paths = ["patches.weight"]} : () -> tensor<64x3x2x2xbf16>
  %b = "sail.weight"() {join = "one", paths = ["patches.bias"]} : () -> tensor<64xbf16>
  %norm = "sail.weight"() {join = "one", paths = ["norm.weight"]} : () -> tensor<64xbf16>
  %pos = "sail.weight"() {join = "one", paths = ["positions"]} : () -> tensor<1x4x64xbf16>
  %y = "sail.patch_embed"(%pixels, %w, %b, %norm, %pos) {eps = 1.0e-5 : f64, patch = 2 : i64} : (tensor<?x3x4x4xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>, tensor<64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
  return %y : tensor<?x4x64xbf16>
}
// ==>
// %w: int8, as rule `patches` asks
// %b: bf16, because no product reads it but `patch_embed`
// %norm: bf16, because no product reads it but `patch_embed`
// %pos: bf16, because no product reads it but `patch_embed`
// func.func @knows_pixels_by_name(%pixels: tensor<?x3x4x4xbf16>) -> tensor<?x4x64xbf16> {
//   %w = "sail.weight"() {join = "one", paths = ["patches.weight"]} : () -> !sail.packed<[64, 3, 2, 2], "int8">
//   %b = "sail.weight"() {join = "one", paths = ["patches.bias"]} : () -> tensor<64xbf16>
//   %norm = "sail.weight"() {join = "one", paths = ["norm.weight"]} : () -> tensor<64xbf16>
//   %pos = "sail.weight"() {join = "one", paths = ["positions"]} : () -> tensor<1x4x64xbf16>
//   %y = "sail.patch_embed"(%pixels, %w, %b, %norm, %pos) {eps = 1.000000e-05 : f64, patch = 2 : i64} : (tensor<?x3x4x4xbf16>, !sail.packed<[64, 3, 2, 2], "int8">, tensor<64xbf16>, tensor<64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
//   return %y : tensor<?x4x64xbf16>
// }
