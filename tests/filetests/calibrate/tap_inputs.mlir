//! test: tap_inputs

// A product taps what it reads, a value that two products read is tapped once.
func.func @f.taps(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
  %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<64xbf16>
  %a = "sail.weight"() {join = "one", paths = ["a"]} : () -> tensor<96x64xbf16>
  %b = "sail.weight"() {join = "one", paths = ["b"]} : () -> tensor<96x64xbf16>
  %h = "sail.rms_norm"(%x, %norm) {eps = 1.000000e+00 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %one = "sail.linear"(%h, %a) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %two = "sail.linear"(%h, %b) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %y = "sail.add"(%one, %two) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==>
// func.func @f.taps(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
//   %norm = "sail.weight"() {join = "one", paths = ["norm"]} : () -> tensor<64xbf16>
//   %a = "sail.weight"() {join = "one", paths = ["a"]} : () -> tensor<96x64xbf16>
//   %b = "sail.weight"() {join = "one", paths = ["b"]} : () -> tensor<96x64xbf16>
//   %h = "sail.rms_norm"(%x, %norm) {eps = 1.000000e+00 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//   "sail.tap"(%h) {name = "input.f.h"} : (tensor<?x64xbf16>) -> ()
//   %one = "sail.linear"(%h, %a) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
//   %two = "sail.linear"(%h, %b) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
//   %y = "sail.add"(%one, %two) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
//   return %y : tensor<?x96xbf16>
// }

// -----

// A function that is run is left as it is.
func.func @f(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
  %a = "sail.weight"() {join = "one", paths = ["a"]} : () -> tensor<96x64xbf16>
  %one = "sail.linear"(%x, %a) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  return %one : tensor<?x96xbf16>
}
// ==> unchanged

// -----

// The product of pixels keeps bf16 and is not tapped.
func.func @f.taps(%pixels: tensor<?x3x56x56xbf16>) -> tensor<?x16x64xbf16> {
  %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> tensor<64x588xbf16>
  %b = "sail.weight"() {join = "one", paths = ["b"]} : () -> tensor<64xbf16>
  %x = "sail.patches"(%pixels) {patch = 14 : i64} : (tensor<?x3x56x56xbf16>) -> tensor<?x16x588xbf16>
  %y = "sail.linear_bias"(%x, %w, %b) : (tensor<?x16x588xbf16>, tensor<64x588xbf16>, tensor<64xbf16>) -> tensor<?x16x64xbf16>
  return %y : tensor<?x16x64xbf16>
}
// ==> unchanged
