//! test: lower
//! positions: 40

// Rotations of one kind share a table; another theta has its own.
func.func @gives_rope_a_table(%x: tensor<?x64xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %a = "sail.rope"(%x, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %b = "sail.rope"(%a, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %c = "sail.rope"(%b, %rows) {head_dim = 16 : i64, theta = 1.000000e+04 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %c : tensor<?x64xbf16>
}
// ==>
// func.func @gives_rope_a_table(%x: tensor<?x64xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
//   %rope.16 = "sail.table"() {head_dim = 16 : i64, kind = "rope", positions = 40 : i64, theta = 1.000000e+06 : f64} : () -> tensor<40x16xbf16>
//   %a = "sail.rope"(%x, %rows, %rope.16) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<40x16xbf16>) -> tensor<?x64xbf16>
//   %b = "sail.rope"(%a, %rows, %rope.16) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<40x16xbf16>) -> tensor<?x64xbf16>
//   %rope.16_0 = "sail.table"() {head_dim = 16 : i64, kind = "rope", positions = 40 : i64, theta = 1.000000e+04 : f64} : () -> tensor<40x16xbf16>
//   %c = "sail.rope"(%b, %rows, %rope.16_0) {head_dim = 16 : i64, theta = 1.000000e+04 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<40x16xbf16>) -> tensor<?x64xbf16>
//   return %c : tensor<?x64xbf16>
// }

// -----

// The sum over one rank is the value.
func.func @resolves_ranks(%x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %y = "sail.silu"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %z = "sail.all_reduce"(%y) {axis = "width"} : (tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %z : tensor<?x64xbf16>
}
// ==>
// func.func @resolves_ranks(%x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
//   %y = "sail.silu"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }
