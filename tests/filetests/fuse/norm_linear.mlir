//! test: fuse
//! rules: norm_linear

// One product reads the normed rows: it norms them itself.
func.func @fuses(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %w: tensor<96x64xbf16>) -> tensor<?x96xbf16> {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.linear"(%h, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==>
// norm_linear %h: fired
// func.func @fuses(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %w: tensor<96x64xbf16>) -> tensor<?x96xbf16> {
//   %y = "sail.norm_linear"(%x, %norm, %w) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
//   return %y : tensor<?x96xbf16>
// }

// -----

// The gated input of a feed-forward alike.
func.func @fuses_into_gate_up_silu(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %w: tensor<192x64xbf16>) -> tensor<?x96xbf16> {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.gate_up_silu"(%h, %w) : (tensor<?x64xbf16>, tensor<192x64xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==>
// norm_linear %h: fired
// func.func @fuses_into_gate_up_silu(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %w: tensor<192x64xbf16>) -> tensor<?x96xbf16> {
//   %y = "sail.norm_gate_up_silu"(%x, %norm, %w) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>, tensor<192x64xbf16>) -> tensor<?x96xbf16>
//   return %y : tensor<?x96xbf16>
// }

// -----

// Two products would norm every row twice.
func.func @keeps_a_norm_of_two_products(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %w: tensor<96x64xbf16>, %v: tensor<32x64xbf16>) -> (tensor<?x96xbf16>, tensor<?x32xbf16>) {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.linear"(%h, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %z = "sail.linear"(%h, %v) : (tensor<?x64xbf16>, tensor<32x64xbf16>) -> tensor<?x32xbf16>
  return %y, %z : tensor<?x96xbf16>, tensor<?x32xbf16>
}
// ==> unchanged
// norm_linear %h: declined: `%h` is also read by `sail.linear`

// -----

// A tapped value exists as such.
func.func @keeps_a_tapped_norm(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %w: tensor<96x64xbf16>) -> tensor<?x96xbf16> {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  "sail.tap"(%h) {name = "h"} : (tensor<?x64xbf16>) -> ()
  %y = "sail.linear"(%h, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==> unchanged
// norm_linear %h: declined: `sail.tap`, which reads `%h`, norms nothing

// -----

// An addition norms nothing.
func.func @keeps_a_norm_that_is_added(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>) -> tensor<?x64xbf16> {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.add"(%h, %x) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// norm_linear %h: declined: `sail.add`, which reads `%h`, norms nothing
