//! test: fuse
//! rules: group_experts

// Gather, gate and up, down, weighted sum; the residual is added with the sum.
func.func @fuses(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>, %x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %gate = "sail.weight"() {join = "stack", paths = ["g.0", "g.1"]} : () -> tensor<2x24x64xbf16>
  %up = "sail.weight"() {join = "stack", paths = ["u.0", "u.1"]} : () -> tensor<2x24x64xbf16>
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
  %mix = "sail.experts"(%h, %ids, %weights, %gate, %up, %down) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, tensor<2x24x64xbf16>, tensor<2x24x64xbf16>, tensor<2x64x24xbf16>) -> tensor<?x64xbf16>
  %y = "sail.add"(%x, %mix) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// group_experts %mix: fired
// func.func @fuses(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>, %x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
//   %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
//   %mix.gate_up.weight = "sail.weight"() {join = "stack_interleave", paths = ["g.0", "g.1", "u.0", "u.1"]} : () -> tensor<2x48x64xbf16>
//   %mix.group:3 = "sail.group_by_expert"(%ids) {experts = 2 : i64} : (tensor<?x3xi32>) -> (tensor<?x3xi32>, tensor<?x3xi32>, tensor<3xi32>)
//   %mix.act = "sail.grouped_gate_up_silu"(%h, %mix.group#0, %mix.group#2, %mix.gate_up.weight) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<3xi32>, tensor<2x48x64xbf16>) -> tensor<?x3x24xbf16>
//   %mix.down = "sail.grouped_linear"(%mix.act, %mix.group#2, %down) : (tensor<?x3x24xbf16>, tensor<3xi32>, tensor<2x64x24xbf16>) -> tensor<?x3x64xbf16>
//   %y = "sail.combine_add"(%mix.down, %mix.group#1, %weights, %x) : (tensor<?x3x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

// The sum itself is asked for: grouped all the same, the addition stays.
func.func @fuses_a_sum_with_two_readers(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>, %x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %gate = "sail.weight"() {join = "stack", paths = ["g.0", "g.1"]} : () -> tensor<2x24x64xbf16>
  %up = "sail.weight"() {join = "stack", paths = ["u.0", "u.1"]} : () -> tensor<2x24x64xbf16>
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
  %mix = "sail.experts"(%h, %ids, %weights, %gate, %up, %down) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, tensor<2x24x64xbf16>, tensor<2x24x64xbf16>, tensor<2x64x24xbf16>) -> tensor<?x64xbf16>
  "sail.tap"(%mix) {name = "mix"} : (tensor<?x64xbf16>) -> ()
  %y = "sail.add"(%x, %mix) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// group_experts %mix: fired
// func.func @fuses_a_sum_with_two_readers(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>, %x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
//   %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
//   %mix.gate_up.weight = "sail.weight"() {join = "stack_interleave", paths = ["g.0", "g.1", "u.0", "u.1"]} : () -> tensor<2x48x64xbf16>
//   %mix.group:3 = "sail.group_by_expert"(%ids) {experts = 2 : i64} : (tensor<?x3xi32>) -> (tensor<?x3xi32>, tensor<?x3xi32>, tensor<3xi32>)
//   %mix.act = "sail.grouped_gate_up_silu"(%h, %mix.group#0, %mix.group#2, %mix.gate_up.weight) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<3xi32>, tensor<2x48x64xbf16>) -> tensor<?x3x24xbf16>
//   %mix.down = "sail.grouped_linear"(%mix.act, %mix.group#2, %down) : (tensor<?x3x24xbf16>, tensor<3xi32>, tensor<2x64x24xbf16>) -> tensor<?x3x64xbf16>
//   %mix = "sail.combine"(%mix.down, %mix.group#1, %weights) : (tensor<?x3x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>) -> tensor<?x64xbf16>
//   "sail.tap"(%mix) {name = "mix"} : (tensor<?x64xbf16>) -> ()
//   %y = "sail.add"(%x, %mix) : (tensor<?x64xbf16>, tensor<?x64xbf16>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

// Gates that are given, not read from the checkpoint, cannot be laid out beside the ups.
func.func @keeps_gates_that_are_an_argument(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>, %gate: tensor<2x24x64xbf16>) -> tensor<?x64xbf16> {
  %up = "sail.weight"() {join = "stack", paths = ["u.0", "u.1"]} : () -> tensor<2x24x64xbf16>
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
  %mix = "sail.experts"(%h, %ids, %weights, %gate, %up, %down) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, tensor<2x24x64xbf16>, tensor<2x24x64xbf16>, tensor<2x64x24xbf16>) -> tensor<?x64xbf16>
  return %mix : tensor<?x64xbf16>
}
// ==> unchanged
// group_experts %mix: declined: `%gate` is not made by `sail.weight`

// -----

func.func @keeps_experts_that_come_down_by_an_argument(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>, %down: tensor<2x64x24xbf16>) -> tensor<?x64xbf16> {
  %gate = "sail.weight"() {join = "stack", paths = ["g.0", "g.1"]} : () -> tensor<2x24x64xbf16>
  %up = "sail.weight"() {join = "stack", paths = ["u.0", "u.1"]} : () -> tensor<2x24x64xbf16>
  %mix = "sail.experts"(%h, %ids, %weights, %gate, %up, %down) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, tensor<2x24x64xbf16>, tensor<2x24x64xbf16>, tensor<2x64x24xbf16>) -> tensor<?x64xbf16>
  return %mix : tensor<?x64xbf16>
}
// ==> unchanged
// group_experts %mix: declined: `%down` is not made by `sail.weight`

// -----

// One tensor that holds all experts is not a stack of paths.
func.func @keeps_a_weight_of_one_tensor(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>) -> tensor<?x64xbf16> {
  %gate = "sail.weight"() {join = "one", paths = ["g"]} : () -> tensor<2x24x64xbf16>
  %up = "sail.weight"() {join = "one", paths = ["u"]} : () -> tensor<2x24x64xbf16>
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> tensor<2x64x24xbf16>
  %mix = "sail.experts"(%h, %ids, %weights, %gate, %up, %down) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, tensor<2x24x64xbf16>, tensor<2x24x64xbf16>, tensor<2x64x24xbf16>) -> tensor<?x64xbf16>
  return %mix : tensor<?x64xbf16>
}
// ==> unchanged
// group_experts %mix: declined: the paths of `%gate` are joined by `one`, not by `stack`
