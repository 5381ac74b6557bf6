//! test: quantize
//! scheme: int4
//! recipe: *.0.down:int8-weight, *.q:bf16, *.k:bf16, layers.?.v:bf16, *:int8

// The first rule that matches a layer decides; joined weights are asked alike; a norm has no scheme.
func.func @follows_the_recipe(%x: tensor<?x64xbf16>) -> (tensor<?x96xbf16>, tensor<?x32xbf16>, tensor<?x48xbf16>) {
  %norm = "sail.weight"() {join = "one", paths = ["layers.0.norm.weight"]} : () -> tensor<64xbf16>
  %down = "sail.weight"() {join = "one", paths = ["layers.0.down.weight"]} : () -> tensor<96x64xbf16>
  %qkv = "sail.weight"() {join = "concat", paths = ["layers.0.q.weight", "layers.0.k.weight", "layers.0.v.weight"]} : () -> tensor<32x64xbf16>
  %up = "sail.weight"() {join = "one", paths = ["layers.0.up.weight"]} : () -> tensor<48x64xbf16>
  %h = "sail.rms_norm"(%x, %norm) {eps = 1.0e-6 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.linear"(%h, %down) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16>
  %z = "sail.linear"(%h, %qkv) : (tensor<?x64xbf16>, tensor<32x64xbf16>) -> tensor<?x32xbf16>
  %u = "sail.linear"(%h, %up) : (tensor<?x64xbf16>, tensor<48x64xbf16>) -> tensor<?x48xbf16>
  return %y, %z, %u : tensor<?x96xbf16>, tensor<?x32xbf16>, tensor<?x48xbf16>
}
// ==>
// %norm: bf16, because no product reads it but `rms_norm`
// %down: int8-weight, as rule `*.0.down` asks
// %qkv: bf16, as rule `*.q` asks
// %up: int8, as rule `*` asks
// func.func @follows_the_recipe(%x: tensor<?x64xbf16>) -> (tensor<?x96xbf16>, tensor<?x32xbf16>, tensor<?x48xbf16>) {
//   %norm = "sail.weight"() {join = "one", paths = ["layers.0.norm.weight"]} : () -> tensor<64xbf16>
//   %down = "sail.weight"() {join = "one", paths = ["layers.0.down.weight"]} : () -> !sail.packed<[96, 64], "int8-weight">
//   %qkv = "sail.weight"() {join = "concat", paths = ["layers.0.q.weight", "layers.0.k.weight", "layers.0.v.weight"]} : () -> !sail.packed<[32, 64], "bf16">
//   %up = "sail.weight"() {join = "one", paths = ["layers.0.up.weight"]} : () -> !sail.packed<[48, 64], "int8">
//   %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//   %y = "sail.linear"(%h, %down) : (tensor<?x64xbf16>, !sail.packed<[96, 64], "int8-weight">) -> tensor<?x96xbf16>
//   %z = "sail.linear"(%h, %qkv) : (tensor<?x64xbf16>, !sail.packed<[32, 64], "bf16">) -> tensor<?x32xbf16>
//   %u = "sail.linear"(%h, %up) : (tensor<?x64xbf16>, !sail.packed<[48, 64], "int8">) -> tensor<?x48xbf16>
//   return %y, %z, %u : tensor<?x96xbf16>, tensor<?x32xbf16>, tensor<?x48xbf16>
// }
