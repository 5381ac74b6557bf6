//! test: verify
//! stage: packed

func.func @packing(%x: tensor<?x64xbf16>, %w: tensor<96x64xbf16>, %p: !sail.packed<[96, 64], "bf16">, %n: !sail.packed<[64], "bf16">) {
  %a = "sail.linear"(%x, %w) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x96xbf16> // error: `weight` is `tensor<96x64xbf16>` and must be packed in stage `packed`
  %b = "sail.linear"(%x, %p) : (tensor<?x64xbf16>, !sail.packed<[96, 64], "bf16">) -> tensor<?x96xbf16>
  %c = "sail.rms_norm"(%x, %n) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, !sail.packed<[64], "bf16">) -> tensor<?x64xbf16> // error: `weight` is `!sail.packed<[64], "bf16">` and must not be packed in stage `packed`
  %d = "sail.weight"() {join = "one", paths = ["w"]} : () -> !sail.packed<[96, 64], "int3"> // error: unknown scheme `int3`; known: `bf16`, `int8`, `int8-weight`, `int4`, `fp8`
  return
}
