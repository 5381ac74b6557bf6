//! test: fuse
//! rules: linear_add

// The product ends a block: its residual is added inside.
func.func @fuses(%act: tensor<?x96xbf16>, %w: tensor<64x96xbf16>, %x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %down = "sail.linear"(%act, %w) : (tensor<?x96xbf16>, tensor<64x96xbf16>) -> tensor<?x64xbf16>
  %y = "sail.add"(%x, %down) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// linear_add %y: fired
// func.func @fuses(%act: tensor<?x96xbf16>, %w: tensor<64x96xbf16>, %x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
//   %y = "sail.linear_add"(%act, %w, %x) : (tensor<?x96xbf16>, tensor<64x96xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

// The product may stand on the left; of two, the right one takes the other in.
func.func @fuses_either_side(%act: tensor<?x96xbf16>, %w: tensor<64x96xbf16>, %v: tensor<64x96xbf16>) -> tensor<?x64xbf16> {
  %left = "sail.linear"(%act, %w) : (tensor<?x96xbf16>, tensor<64x96xbf16>) -> tensor<?x64xbf16>
  %right = "sail.linear"(%act, %v) : (tensor<?x96xbf16>, tensor<64x96xbf16>) -> tensor<?x64xbf16>
  %y = "sail.add"(%left, %right) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// linear_add %y: fired
// func.func @fuses_either_side(%act: tensor<?x96xbf16>, %w: tensor<64x96xbf16>, %v: tensor<64x96xbf16>) -> tensor<?x64xbf16> {
//   %left = "sail.linear"(%act, %w) : (tensor<?x96xbf16>, tensor<64x96xbf16>) -> tensor<?x64xbf16>
//   %y = "sail.linear_add"(%act, %v, %left) : (tensor<?x96xbf16>, tensor<64x96xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

func.func @keeps_a_product_that_is_returned(%act: tensor<?x96xbf16>, %w: tensor<64x96xbf16>, %x: tensor<?x64xbf16>) -> (tensor<?x64xbf16>, tensor<?x64xbf16>) {
  %down = "sail.linear"(%act, %w) : (tensor<?x96xbf16>, tensor<64x96xbf16>) -> tensor<?x64xbf16>
  %y = "sail.add"(%down, %x) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y, %down : tensor<?x64xbf16>, tensor<?x64xbf16>
}
// ==> unchanged
// linear_add %y: declined: `%down` is also read by `func.return`

// -----

func.func @keeps_a_product_added_to_itself(%act: tensor<?x96xbf16>, %w: tensor<64x96xbf16>) -> tensor<?x64xbf16> {
  %down = "sail.linear"(%act, %w) : (tensor<?x96xbf16>, tensor<64x96xbf16>) -> tensor<?x64xbf16>
  %y = "sail.add"(%down, %down) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// linear_add %y: declined: `%down` is also read by `sail.add`

// -----

func.func @keeps_a_sum_without_product(%x: tensor<?x64xbf16>, %z: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %y = "sail.add"(%x, %z) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// linear_add %y: declined: `%z` is not made by `sail.linear`
