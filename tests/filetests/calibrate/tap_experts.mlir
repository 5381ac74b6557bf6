//! test: tap_experts

// What the last products of experts read is called after the tap of the router that sorted it.
func.func @f.taps(%x: tensor<?x64xbf16>) -> tensor<?x2x64xbf16> {
  %router = "sail.weight"() {join = "one", paths = ["r"]} : () -> tensor<3x64xbf16>
  %gate_up = "sail.weight"() {join = "stack_interleave", paths = ["g.0", "g.1", "g.2", "u.0", "u.1", "u.2"]} : () -> tensor<3x48x64xbf16>
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1", "d.2"]} : () -> tensor<3x64x24xbf16>
  %logits = "sail.linear"(%x, %router) : (tensor<?x64xbf16>, tensor<3x64xbf16>) -> tensor<?x3xbf16>
  "sail.tap"(%logits) {name = "router.5"} : (tensor<?x3xbf16>) -> ()
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x3xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %group:3 = "sail.group_by_expert"(%route#0) {experts = 3 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<4xi32>)
  %act = "sail.grouped_gate_up_silu"(%x, %group#0, %group#2, %gate_up) : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<4xi32>, tensor<3x48x64xbf16>) -> tensor<?x2x24xbf16>
  %y = "sail.grouped_linear"(%act, %group#2, %down) : (tensor<?x2x24xbf16>, tensor<4xi32>, tensor<3x64x24xbf16>) -> tensor<?x2x64xbf16>
  return %y : tensor<?x2x64xbf16>
}
// ==>
// func.func @f.taps(%x: tensor<?x64xbf16>) -> tensor<?x2x64xbf16> {
//   %router = "sail.weight"() {join = "one", paths = ["r"]} : () -> tensor<3x64xbf16>
//   %gate_up = "sail.weight"() {join = "stack_interleave", paths = ["g.0", "g.1", "g.2", "u.0", "u.1", "u.2"]} : () -> tensor<3x48x64xbf16>
//   %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1", "d.2"]} : () -> tensor<3x64x24xbf16>
//   %logits = "sail.linear"(%x, %router) : (tensor<?x64xbf16>, tensor<3x64xbf16>) -> tensor<?x3xbf16>
//   "sail.tap"(%logits) {name = "router.5"} : (tensor<?x3xbf16>) -> ()
//   %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x3xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
//   %group:3 = "sail.group_by_expert"(%route#0) {experts = 3 : i64} : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<4xi32>)
//   %act = "sail.grouped_gate_up_silu"(%x, %group#0, %group#2, %gate_up) : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<4xi32>, tensor<3x48x64xbf16>) -> tensor<?x2x24xbf16>
//   "sail.tap"(%act) {name = "experts.router.5"} : (tensor<?x2x24xbf16>) -> ()
//   %y = "sail.grouped_linear"(%act, %group#2, %down) : (tensor<?x2x24xbf16>, tensor<4xi32>, tensor<3x64x24xbf16>) -> tensor<?x2x64xbf16>
//   return %y : tensor<?x2x64xbf16>
// }

// -----

// Without a tap of the router nobody could say which row is whose.
func.func @f.taps(%x: tensor<?x64xbf16>) -> tensor<?x1x64xbf16> {
  %router = "sail.weight"() {join = "one", paths = ["r"]} : () -> tensor<2x64xbf16>
  %gate_up = "sail.weight"() {join = "stack_interleave", paths = ["g.0", "g.1", "u.0", "u.1"]} : () -> tensor<2x48x64xbf16>
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
  %logits = "sail.linear"(%x, %router) : (tensor<?x64xbf16>, tensor<2x64xbf16>) -> tensor<?x2xbf16>
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 1 : i64} : (tensor<?x2xbf16>) -> (tensor<?x1xi32>, tensor<?x1xbf16>)
  %group:3 = "sail.group_by_expert"(%route#0) {experts = 2 : i64} : (tensor<?x1xi32>) -> (tensor<?x1xi32>, tensor<?x1xi32>, tensor<3xi32>)
  %act = "sail.grouped_gate_up_silu"(%x, %group#0, %group#2, %gate_up) : (tensor<?x64xbf16>, tensor<?x1xi32>, tensor<3xi32>, tensor<2x48x64xbf16>) -> tensor<?x1x24xbf16>
  %y = "sail.grouped_linear"(%act, %group#2, %down) : (tensor<?x1x24xbf16>, tensor<3xi32>, tensor<2x64x24xbf16>) -> tensor<?x1x64xbf16>
  return %y : tensor<?x1x64xbf16>
}
// ==> unchanged
