//! test: fuse
//! rules: norm_linear_route_group

// The experts read the normed rows, too.
func.func @fuses(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %router: tensor<8x64xbf16>, %gate_up: tensor<8x48x64xbf16>) -> (tensor<?x2x24xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>) {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %logits = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %group:3 = "sail.group_by_expert"(%route#0) {experts = 8 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>)
  %act = "sail.grouped_gate_up_silu"(%h, %group#0, %group#2, %gate_up) : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<9xi32>, tensor<8x48x64xbf16>) -> tensor<?x2x24xbf16>
  return %act, %group#1, %route#1 : tensor<?x2x24xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>
}
// ==>
// norm_linear_route_group %group: fired
// func.func @fuses(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %router: tensor<8x64xbf16>, %gate_up: tensor<8x48x64xbf16>) -> (tensor<?x2x24xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>) {
//   %route:6 = "sail.norm_linear_route_group"(%x, %norm, %router) {eps = 9.9999999999999995E-7 : f64, renormalize = true, top_k = 2 : i64} : (tensor<?x64xbf16>, tensor<64xbf16>, tensor<8x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>, tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>, tensor<?x64xbf16>)
//   %act = "sail.grouped_gate_up_silu"(%route#5, %route#2, %route#4, %gate_up) : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<9xi32>, tensor<8x48x64xbf16>) -> tensor<?x2x24xbf16>
//   return %act, %route#3, %route#1 : tensor<?x2x24xbf16>, tensor<?x2xi32>, tensor<?x2xbf16>
// }

// -----

// Logits that are tapped exist as such: so it is in `@prefill.taps`.
func.func @keeps_tapped_logits(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %router: tensor<8x64xbf16>) -> (tensor<9xi32>, tensor<?x2xbf16>) {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %logits = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
  "sail.tap"(%logits) {name = "router.0"} : (tensor<?x8xbf16>) -> ()
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %group:3 = "sail.group_by_expert"(%route#0) {experts = 8 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>)
  return %group#2, %route#1 : tensor<9xi32>, tensor<?x2xbf16>
}
// ==> unchanged
// norm_linear_route_group %group: declined: `%logits` is also read by `sail.tap`

// -----

// The ids are asked for themselves.
func.func @keeps_ids_with_two_readers(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %router: tensor<8x64xbf16>) -> (tensor<9xi32>, tensor<?x2xi32>) {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %logits = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %group:3 = "sail.group_by_expert"(%route#0) {experts = 8 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>)
  return %group#2, %route#0 : tensor<9xi32>, tensor<?x2xi32>
}
// ==> unchanged
// norm_linear_route_group %group: declined: `%route` is also read by `func.return`

// -----

func.func @keeps_rows_that_no_norm_makes(%h: tensor<?x64xbf16>, %router: tensor<8x64xbf16>) -> (tensor<9xi32>, tensor<?x2xbf16>) {
  %logits = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %group:3 = "sail.group_by_expert"(%route#0) {experts = 8 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>)
  return %group#2, %route#1 : tensor<9xi32>, tensor<?x2xbf16>
}
// ==> unchanged
// norm_linear_route_group %group: declined: `%h` is not made by `sail.rms_norm`

// -----

// Who reads the normed rows before the product would read what does not exist yet.
func.func @keeps_rows_that_are_read_before(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %router: tensor<8x64xbf16>) -> (tensor<9xi32>, tensor<?x2xbf16>) {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  "sail.tap"(%h) {name = "h"} : (tensor<?x64xbf16>) -> ()
  %logits = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %group:3 = "sail.group_by_expert"(%route#0) {experts = 8 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<9xi32>)
  return %group#2, %route#1 : tensor<9xi32>, tensor<?x2xbf16>
}
// ==> unchanged
// norm_linear_route_group %group: declined: `sail.tap` reads `%h` before the router does
