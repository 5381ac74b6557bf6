//! test: fuse
//! rules: gate_up_silu

// Both products of one input, each read once: six ops become two.
func.func @fuses(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
  %mlp.gate_proj.weight = "sail.weight"() {join = "one", paths = ["gate"]} : () -> tensor<96x64xbf16>
  %mlp.up_proj.weight = "sail.weight"() {join = "one", paths = ["up"]} : () -> tensor<96x64xbf16>
  %gate = "sail.linear"(%x, %mlp.gate_proj.weight) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %up = "sail.linear"(%x, %mlp.up_proj.weight) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %act = "sail.silu"(%gate) : (tensor<?x96xbf16>) -> tensor<?x96xbf16>
  %y = "sail.mul"(%up, %act) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==>
// gate_up_silu %y: fired
// func.func @fuses(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
//   %mlp.gate_up.weight = "sail.weight"() {join = "interleave", paths = ["gate", "up"]} : () -> tensor<192x64xbf16>
//   %y = "sail.gate_up_silu"(%x, %mlp.gate_up.weight) : (tensor<?x64xbf16>, tensor<192x64xbf16>) -> tensor<?x96xbf16>
//   return %y : tensor<?x96xbf16>
// }

// -----

// `gate` is also returned, so it must exist anyway.
func.func @keeps_a_shared_gate(%x: tensor<?x64xbf16>) -> (tensor<?x96xbf16>, tensor<?x96xbf16>) {
  %w_gate = "sail.weight"() {join = "one", paths = ["gate"]} : () -> tensor<96x64xbf16>
  %w_up = "sail.weight"() {join = "one", paths = ["up"]} : () -> tensor<96x64xbf16>
  %gate = "sail.linear"(%x, %w_gate) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %up = "sail.linear"(%x, %w_up) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %act = "sail.silu"(%gate) : (tensor<?x96xbf16>) -> tensor<?x96xbf16>
  %y = "sail.mul"(%act, %up) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
  return %y, %gate : tensor<?x96xbf16>, tensor<?x96xbf16>
}
// ==> unchanged
// gate_up_silu %y: declined: `%gate` is also read by `func.return`

// -----

// Gate and up of different rows are two products.
func.func @keeps_products_of_two_inputs(%x: tensor<?x64xbf16>, %z: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
  %w_gate = "sail.weight"() {join = "one", paths = ["gate"]} : () -> tensor<96x64xbf16>
  %w_up = "sail.weight"() {join = "one", paths = ["up"]} : () -> tensor<96x64xbf16>
  %gate = "sail.linear"(%x, %w_gate) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %up = "sail.linear"(%z, %w_up) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %act = "sail.silu"(%gate) : (tensor<?x96xbf16>) -> tensor<?x96xbf16>
  %y = "sail.mul"(%act, %up) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==> unchanged
// gate_up_silu %y: declined: gate reads `%x`, up reads `%z`

// -----

// What is not a tensor of the checkpoint cannot be laid out when compiling.
func.func @keeps_a_weight_that_is_an_argument(%x: tensor<?x64xbf16>, %w_up: tensor<96x64xbf16>) -> tensor<?x96xbf16> {
  %w_gate = "sail.weight"() {join = "one", paths = ["gate"]} : () -> tensor<96x64xbf16>
  %gate = "sail.linear"(%x, %w_gate) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %up = "sail.linear"(%x, %w_up) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %act = "sail.silu"(%gate) : (tensor<?x96xbf16>) -> tensor<?x96xbf16>
  %y = "sail.mul"(%act, %up) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==> unchanged
// gate_up_silu %y: declined: `%w_up` is not made by `sail.weight`

// -----

// One product on both sides is read twice.
func.func @keeps_a_product_that_gates_itself(%x: tensor<?x64xbf16>) -> tensor<?x96xbf16> {
  %w = "sail.weight"() {join = "one", paths = ["gate"]} : () -> tensor<96x64xbf16>
  %gate = "sail.linear"(%x, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %act = "sail.silu"(%gate) : (tensor<?x96xbf16>) -> tensor<?x96xbf16>
  %y = "sail.mul"(%act, %gate) : (tensor<?x96xbf16>, tensor<?x96xbf16>) -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}
// ==> unchanged
// gate_up_silu %y: declined: `%gate` is also read by `sail.mul`
