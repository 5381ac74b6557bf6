//! test: fuse
//! rules: linear_bias_gelu, shuffle_norm_linear_gelu

// The adapter up to its activation, from the ops the model says.
func.func @fuses(%x: tensor<?x16x8xbf16>, %ln_w: tensor<32xbf16>, %ln_b: tensor<32xbf16>, %w: tensor<96x32xbf16>, %b: tensor<96xbf16>) -> tensor<?x4x96xbf16> {
  %rows = "sail.pixel_shuffle"(%x) : (tensor<?x16x8xbf16>) -> tensor<?x4x32xbf16>
  %h = "sail.layer_norm"(%rows, %ln_w, %ln_b) {eps = 1.000000e-05 : f64} : (tensor<?x4x32xbf16>, tensor<32xbf16>, tensor<32xbf16>) -> tensor<?x4x32xbf16>
  %wide = "sail.linear_bias"(%h, %w, %b) : (tensor<?x4x32xbf16>, tensor<96x32xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
  %y = "sail.gelu"(%wide) : (tensor<?x4x96xbf16>) -> tensor<?x4x96xbf16>
  return %y : tensor<?x4x96xbf16>
}
// ==>
// linear_bias_gelu %y: fired
// shuffle_norm_linear_gelu %y: fired
// func.func @fuses(%x: tensor<?x16x8xbf16>, %ln_w: tensor<32xbf16>, %ln_b: tensor<32xbf16>, %w: tensor<96x32xbf16>, %b: tensor<96xbf16>) -> tensor<?x4x96xbf16> {
//   %y = "sail.shuffle_norm_linear_gelu"(%x, %ln_w, %ln_b, %w, %b) {eps = 1.000000e-05 : f64} : (tensor<?x16x8xbf16>, tensor<32xbf16>, tensor<32xbf16>, tensor<96x32xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
//   return %y : tensor<?x4x96xbf16>
// }

// -----

// The shuffled rows are asked for: product and GELU still become one.
func.func @keeps_a_tapped_shuffle(%x: tensor<?x16x8xbf16>, %ln_w: tensor<32xbf16>, %ln_b: tensor<32xbf16>, %w: tensor<96x32xbf16>, %b: tensor<96xbf16>) -> tensor<?x4x96xbf16> {
  %rows = "sail.pixel_shuffle"(%x) : (tensor<?x16x8xbf16>) -> tensor<?x4x32xbf16>
  "sail.tap"(%rows) {name = "rows"} : (tensor<?x4x32xbf16>) -> ()
  %h = "sail.layer_norm"(%rows, %ln_w, %ln_b) {eps = 1.000000e-05 : f64} : (tensor<?x4x32xbf16>, tensor<32xbf16>, tensor<32xbf16>) -> tensor<?x4x32xbf16>
  %y = "sail.linear_bias_gelu"(%h, %w, %b) : (tensor<?x4x32xbf16>, tensor<96x32xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
  return %y : tensor<?x4x96xbf16>
}
// ==> unchanged
// shuffle_norm_linear_gelu %y: declined: `%rows` is also read by `sail.tap`

// -----

// A layer norm of rows that were not shuffled.
func.func @keeps_a_norm_without_shuffle(%x: tensor<?x4x32xbf16>, %ln_w: tensor<32xbf16>, %ln_b: tensor<32xbf16>, %w: tensor<96x32xbf16>, %b: tensor<96xbf16>) -> tensor<?x4x96xbf16> {
  %h = "sail.layer_norm"(%x, %ln_w, %ln_b) {eps = 1.000000e-05 : f64} : (tensor<?x4x32xbf16>, tensor<32xbf16>, tensor<32xbf16>) -> tensor<?x4x32xbf16>
  %y = "sail.linear_bias_gelu"(%h, %w, %b) : (tensor<?x4x32xbf16>, tensor<96x32xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
  return %y : tensor<?x4x96xbf16>
}
// ==> unchanged
// shuffle_norm_linear_gelu %y: declined: `%x` is not made by `sail.pixel_shuffle`
