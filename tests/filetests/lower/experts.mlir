//! test: lower

// What no rule has grouped is grouped here, packed weights and all.
func.func @groups_what_fuse_left(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>) -> tensor<?x64xbf16> {
  %gate = "sail.weight"() {join = "stack", paths = ["g.0", "g.1"]} : () -> !sail.packed<[2, 24, 64], "bf16">
  %up = "sail.weight"() {join = "stack", paths = ["u.0", "u.1"]} : () -> !sail.packed<[2, 24, 64], "bf16">
  %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> !sail.packed<[2, 64, 24], "bf16">
  %mix = "sail.experts"(%h, %ids, %weights, %gate, %up, %down) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, !sail.packed<[2, 24, 64], "bf16">, !sail.packed<[2, 24, 64], "bf16">, !sail.packed<[2, 64, 24], "bf16">) -> tensor<?x64xbf16>
  return %mix : tensor<?x64xbf16>
}
// ==>
// func.func @groups_what_fuse_left(%h: tensor<?x64xbf16>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>) -> tensor<?x64xbf16> {
//   %down = "sail.weight"() {join = "stack", paths = ["d.0", "d.1"]} : () -> !sail.packed<[2, 64, 24], "bf16">
//   %mix.gate_up.weight = "sail.weight"() {join = "stack_interleave", paths = ["g.0", "g.1", "u.0", "u.1"]} : () -> !sail.packed<[2, 48, 64], "bf16">
//   %mix.group:3 = "sail.group_by_expert"(%ids) {experts = 2 : i64} : (tensor<?x3xi32>) -> (tensor<?x3xi32>, tensor<?x3xi32>, tensor<3xi32>)
//   %mix.act = "sail.grouped_gate_up_silu"(%h, %mix.group#0, %mix.group#2, %mix.gate_up.weight) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<3xi32>, !sail.packed<[2, 48, 64], "bf16">) -> tensor<?x3x24xbf16>
//   %mix.down = "sail.grouped_linear"(%mix.act, %mix.group#2, %down) : (tensor<?x3x24xbf16>, tensor<3xi32>, !sail.packed<[2, 64, 24], "bf16">) -> tensor<?x3x64xbf16>
//   %mix = "sail.combine"(%mix.down, %mix.group#1, %weights) : (tensor<?x3x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>) -> tensor<?x64xbf16>
//   return %mix : tensor<?x64xbf16>
// }
