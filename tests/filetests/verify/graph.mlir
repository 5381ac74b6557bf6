//! test: verify
//! stage: graph

func.func @later(%x: tensor<?x64xbf16>, %w: tensor<96x64xbf16>, %p: !sail.packed<[96, 64], "bf16">, %n: tensor<64xbf16>, %ids: tensor<?xi32>) {
  %a = "sail.columns"(%x) {count = 8 : i64, first = 0 : i64} : (tensor<?x64xbf16>) -> tensor<?x8xbf16> // error: `sail.columns` is not legal in stage `graph`
  %b = "sail.norm_linear"(%x, %n, %w) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16> // error: `sail.norm_linear` is not legal in stage `graph`
  %c = "sail.linear"(%x, %p) : (tensor<?x64xbf16>, !sail.packed<[96, 64], "bf16">) -> tensor<?x96xbf16> // error: `weight` is `!sail.packed<[96, 64], "bf16">` and must not be packed in stage `graph`
  %d = "sail.table"() {head_dim = 16 : i64, kind = "rope", positions = 40 : i64, theta = 1.000000e+06 : f64} : () -> tensor<40x16xbf16> // error: `sail.table` is not legal in stage `graph`
  %e = "sail.embed"(%ids, %p) : (tensor<?xi32>, !sail.packed<[96, 64], "bf16">) -> tensor<?x64xbf16> // error: `table` is `!sail.packed<[96, 64], "bf16">` and must not be packed in stage `graph`
  return
}
