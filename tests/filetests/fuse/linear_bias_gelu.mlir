//! test: fuse
//! rules: linear_bias_gelu

func.func @fuses(%x: tensor<?x4x64xbf16>, %w: tensor<96x64xbf16>, %b: tensor<96xbf16>) -> tensor<?x4x96xbf16> {
  %h = "sail.linear_bias"(%x, %w, %b) : (tensor<?x4x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
  %y = "sail.gelu"(%h) : (tensor<?x4x96xbf16>) -> tensor<?x4x96xbf16>
  return %y : tensor<?x4x96xbf16>
}
// ==>
// linear_bias_gelu %y: fired
// func.func @fuses(%x: tensor<?x4x64xbf16>, %w: tensor<96x64xbf16>, %b: tensor<96xbf16>) -> tensor<?x4x96xbf16> {
//   %y = "sail.linear_bias_gelu"(%x, %w, %b) : (tensor<?x4x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
//   return %y : tensor<?x4x96xbf16>
// }

// -----

func.func @keeps_a_product_that_is_returned(%x: tensor<?x4x64xbf16>, %w: tensor<96x64xbf16>, %b: tensor<96xbf16>) -> (tensor<?x4x96xbf16>, tensor<?x4x96xbf16>) {
  %h = "sail.linear_bias"(%x, %w, %b) : (tensor<?x4x64xbf16>, tensor<96x64xbf16>, tensor<96xbf16>) -> tensor<?x4x96xbf16>
  %y = "sail.gelu"(%h) : (tensor<?x4x96xbf16>) -> tensor<?x4x96xbf16>
  return %y, %h : tensor<?x4x96xbf16>, tensor<?x4x96xbf16>
}
// ==> unchanged
// linear_bias_gelu %y: declined: `%h` is also read by `func.return`

// -----

func.func @keeps_a_product_without_bias(%x: tensor<?x4x64xbf16>, %w: tensor<96x64xbf16>) -> tensor<?x4x96xbf16> {
  %h = "sail.linear"(%x, %w) : (tensor<?x4x64xbf16>, tensor<96x64xbf16>) -> tensor<?x4x96xbf16>
  %y = "sail.gelu"(%h) : (tensor<?x4x96xbf16>) -> tensor<?x4x96xbf16>
  return %y : tensor<?x4x96xbf16>
}
// ==> unchanged
// linear_bias_gelu %y: declined: `%h` is not made by `sail.linear_bias`
