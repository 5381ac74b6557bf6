//! test: verify
//! stage: kernels

func.func @lowered(%x: tensor<?x64xbf16>, %rows: tensor<?x2xi32>, %ids: tensor<?x3xi32>, %weights: tensor<?x3xbf16>, %gate: !sail.packed<[2, 24, 64], "bf16">, %down: !sail.packed<[2, 64, 24], "bf16">) {
  %a = "sail.rope"(%x, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16> // error: `sail.rope` has 2 operands, it takes 3 in stage `kernels`
  %t = "sail.table"() {head_dim = 32 : i64, kind = "rope", positions = 40 : i64, theta = 1.000000e+06 : f64} : () -> tensor<40x32xbf16>
  %b = "sail.rope"(%x, %rows, %t) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>, tensor<40x32xbf16>) -> tensor<?x64xbf16> // error: `table` has 32 columns, `head_dim` is 16
  %c = "sail.experts"(%x, %ids, %weights, %gate, %gate, %down) : (tensor<?x64xbf16>, tensor<?x3xi32>, tensor<?x3xbf16>, !sail.packed<[2, 24, 64], "bf16">, !sail.packed<[2, 24, 64], "bf16">, !sail.packed<[2, 64, 24], "bf16">) -> tensor<?x64xbf16> // error: `sail.experts` is not legal in stage `kernels`
  "sail.buffer"() {bytes = "128*r", name = "x", offset = "0", place = "arena", type = "tensor<?x64xbf16>"} : () -> () // error: `sail.buffer` is not legal in stage `kernels`
  return
}
