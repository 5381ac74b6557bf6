//! test: fuse
//! rules: patch_embed

func.func @fuses(%pixels: tensor<?x3x4x4xbf16>, %w: tensor<64x3x2x2xbf16>, %b: tensor<64xbf16>, %norm: tensor<64xbf16>, %pos: tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16> {
  %patches = "sail.patches"(%pixels) {patch = 2 : i64} : (tensor<?x3x4x4xbf16>) -> tensor<?x4x12xbf16>
  %x = "sail.linear_bias"(%patches, %w, %b) : (tensor<?x4x12xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
  %h = "sail.rms_norm"(%x, %norm) {eps = 1.000000e-05 : f64} : (tensor<?x4x64xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
  %y = "sail.add_positions"(%h, %pos) : (tensor<?x4x64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
  return %y : tensor<?x4x64xbf16>
}
// ==>
// patch_embed %y: fired
// func.func @fuses(%pixels: tensor<?x3x4x4xbf16>, %w: tensor<64x3x2x2xbf16>, %b: tensor<64xbf16>, %norm: tensor<64xbf16>, %pos: tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16> {
//   %y = "sail.patch_embed"(%pixels, %w, %b, %norm, %pos) {eps = 1.000000e-05 : f64, patch = 2 : i64} : (tensor<?x3x4x4xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>, tensor<64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
//   return %y : tensor<?x4x64xbf16>
// }

// -----

func.func @keeps_a_tapped_product(%pixels: tensor<?x3x4x4xbf16>, %w: tensor<64x3x2x2xbf16>, %b: tensor<64xbf16>, %norm: tensor<64xbf16>, %pos: tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16> {
  %patches = "sail.patches"(%pixels) {patch = 2 : i64} : (tensor<?x3x4x4xbf16>) -> tensor<?x4x12xbf16>
  %x = "sail.linear_bias"(%patches, %w, %b) : (tensor<?x4x12xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
  "sail.tap"(%x) {name = "x"} : (tensor<?x4x64xbf16>) -> ()
  %h = "sail.rms_norm"(%x, %norm) {eps = 1.000000e-05 : f64} : (tensor<?x4x64xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
  %y = "sail.add_positions"(%h, %pos) : (tensor<?x4x64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
  return %y : tensor<?x4x64xbf16>
}
// ==> unchanged
// patch_embed %y: declined: `%x` is also read by `sail.tap`

// -----

// Positions before a norm, as CLIP has them, are another computation.
func.func @keeps_positions_without_norm(%pixels: tensor<?x3x4x4xbf16>, %w: tensor<64x3x2x2xbf16>, %b: tensor<64xbf16>, %pos: tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16> {
  %patches = "sail.patches"(%pixels) {patch = 2 : i64} : (tensor<?x3x4x4xbf16>) -> tensor<?x4x12xbf16>
  %x = "sail.linear_bias"(%patches, %w, %b) : (tensor<?x4x12xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
  %y = "sail.add_positions"(%x, %pos) : (tensor<?x4x64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
  return %y : tensor<?x4x64xbf16>
}
// ==> unchanged
// patch_embed %y: declined: `%x` is not made by `sail.rms_norm`

// -----

// Rows that are no patches of pixels.
func.func @keeps_a_product_of_other_rows(%rows: tensor<?x4x12xbf16>, %w: tensor<64x3x2x2xbf16>, %b: tensor<64xbf16>, %norm: tensor<64xbf16>, %pos: tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16> {
  %x = "sail.linear_bias"(%rows, %w, %b) : (tensor<?x4x12xbf16>, tensor<64x3x2x2xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
  %h = "sail.rms_norm"(%x, %norm) {eps = 1.000000e-05 : f64} : (tensor<?x4x64xbf16>, tensor<64xbf16>) -> tensor<?x4x64xbf16>
  %y = "sail.add_positions"(%h, %pos) : (tensor<?x4x64xbf16>, tensor<1x4x64xbf16>) -> tensor<?x4x64xbf16>
  return %y : tensor<?x4x64xbf16>
}
// ==> unchanged
// patch_embed %y: declined: `%rows` is not made by `sail.patches`
