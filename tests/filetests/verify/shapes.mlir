//! test: verify
//! stage: graph

func.func @types(%x: tensor<?x64xbf16>, %w: tensor<96x32xbf16>, %v: tensor<96x64xbf16>, %i: tensor<?xi32>) {
  %a = "sail.linear"(%x, %w) : (tensor<?x64xbf16>, tensor<96x32xbf16>) -> tensor<?x96xbf16> // error: `x` has 64 columns, `weight` has 32
  %b = "sail.linear"(%x, %v) : (tensor<?x64xbf16>, tensor<96x64xbf16>) -> tensor<?x95xbf16> // error: the results are `tensor<?x95xbf16>`, the shape rule gives `tensor<?x96xbf16>`
  %c = "sail.silu"(%i) : (tensor<?xi32>) -> tensor<?xi32> // error: `x` is `tensor<?xi32>`, expected a tensor of bf16
  %d = "sail.add"(%x, %b) : (tensor<?x64xbf16>, tensor<?x95xbf16>) -> tensor<?x64xbf16> // error: `x` is `tensor<?x64xbf16>`, `y` is `tensor<?x95xbf16>`
  %e = "sail.gelu"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xf16> // error: `tensor<?x64xf16>` is not a type of the dialect
  return
}

// -----

func.func @attributes(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>) {
  %a = "sail.rms_norm"(%x, %norm) {eps = 1 : i64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16> // error: attribute `eps` is an integer, expected a float
  %b = "sail.silu"(%x) {fast = true} : (tensor<?x64xbf16>) -> tensor<?x64xbf16> // error: `sail.silu` has no attribute `fast`
  %d = "sail.weight"() {join = "sum", paths = ["a"]} : () -> tensor<64xbf16> // error: `join` is `sum`
  %e = "sail.weight"() {join = "stack", paths = ["a"]} : () -> tensor<2x64xbf16> // error: 1 paths joined by `stack` are not `tensor<2x64xbf16>`
  %f = "sail.weight"() {join = "one", paths = [1]} : () -> tensor<2x64xbf16> // error: attribute `paths` is `[1]`, expected a list of texts
  return
}

// -----

func.func @missing_attribute(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>) {
  %a = "sail.rms_norm"(%x, %norm) : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16> // error: 'sail.rms_norm' op attribute "eps" is expected but not provided
  return
}

// -----

func.func @unknown_op(%x: tensor<?x64xbf16>) {
  %a = "sail.softmax"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xbf16> // error: unregistered operation 'sail.softmax' found in dialect ('sail') that does not allow unknown operations
  return
}

// -----

func.func @undefined(%x: tensor<?x64xbf16>) {
  %a = "sail.silu"(%y) : (tensor<?x64xbf16>) -> tensor<?x64xbf16> // error: use of undeclared SSA value name
  return
}

// -----

func.func @too_few_operands(%x: tensor<?x64xbf16>) {
  %a = "sail.add"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xbf16> // error: op expects exactly 2 operands, but got 1
  return
}

// -----

func.func @caches(%x: tensor<?x64xbf16>, %rows: tensor<?x2xi32>) {
  %c = "sail.cache"() {head_dim = 64 : i64, kv_heads = 1 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[1, 64]>
  %twin = "sail.cache"() {head_dim = 64 : i64, kv_heads = 1 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[1, 64]> // error: layer 0 has a cache already
  %d = "sail.cache_write"(%c, %x, %x, %rows) : (!sail.kv_cache<[1, 64]>, tensor<?x64xbf16>, tensor<?x64xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[1, 64]>
  %y = "sail.attention"(%x, %c, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[1, 64]>, tensor<?x2xi32>) -> tensor<?x64xbf16> // error: `%c` is read after `sail.cache_write` changed it
  return
}

// -----

func.func @too_many_results(%x: tensor<?x64xbf16>) {
  %a = "sail.tap"(%x) {name = "x"} : (tensor<?x64xbf16>) -> tensor<?x64xbf16> // error: op expects exactly 0 results, but got 1
  return
}
