//! test: fuse
//! rules: joint_qkv

// Through the norms and rotations of heads, three products of one input are found.
func.func @fuses(%h: tensor<?x24xbf16>, %n: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %attn.q.weight = "sail.weight"() {join = "one", paths = ["q"]} : () -> tensor<64x24xbf16>
  %attn.k.weight = "sail.weight"() {join = "one", paths = ["k"]} : () -> tensor<32x24xbf16>
  %attn.v.weight = "sail.weight"() {join = "one", paths = ["v"]} : () -> tensor<32x24xbf16>
  %attn.q = "sail.linear"(%h, %attn.q.weight) : (tensor<?x24xbf16>, tensor<64x24xbf16>) -> tensor<?x64xbf16>
  %attn.k = "sail.linear"(%h, %attn.k.weight) : (tensor<?x24xbf16>, tensor<32x24xbf16>) -> tensor<?x32xbf16>
  %attn.v = "sail.linear"(%h, %attn.v.weight) : (tensor<?x24xbf16>, tensor<32x24xbf16>) -> tensor<?x32xbf16>
  %q.n = "sail.head_norm"(%attn.q, %n) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
  %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %k.r = "sail.rope"(%attn.k, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k.r, %attn.v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// joint_qkv %y: fired
// func.func @fuses(%h: tensor<?x24xbf16>, %n: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
//   %attn.qkv.weight = "sail.weight"() {join = "concat", paths = ["q", "k", "v"]} : () -> tensor<128x24xbf16>
//   %attn.qkv = "sail.linear"(%h, %attn.qkv.weight) : (tensor<?x24xbf16>, tensor<128x24xbf16>) -> tensor<?x128xbf16>
//   %attn.q = "sail.columns"(%attn.qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x128xbf16>) -> tensor<?x64xbf16>
//   %attn.k = "sail.columns"(%attn.qkv) {count = 32 : i64, first = 64 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
//   %attn.v = "sail.columns"(%attn.qkv) {count = 32 : i64, first = 96 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
//   %q.n = "sail.head_norm"(%attn.q, %n) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
//   %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//   %k.r = "sail.rope"(%attn.k, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
//   %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
//   %after = "sail.cache_write"(%cache, %k.r, %attn.v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
//   %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

// Keys and values of something else (cross attention) are products of their own.
func.func @keeps_products_of_two_inputs(%h: tensor<?x24xbf16>, %z: tensor<?x24xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %w_q = "sail.weight"() {join = "one", paths = ["q"]} : () -> tensor<64x24xbf16>
  %w_k = "sail.weight"() {join = "one", paths = ["k"]} : () -> tensor<32x24xbf16>
  %w_v = "sail.weight"() {join = "one", paths = ["v"]} : () -> tensor<32x24xbf16>
  %q = "sail.linear"(%h, %w_q) : (tensor<?x24xbf16>, tensor<64x24xbf16>) -> tensor<?x64xbf16>
  %k = "sail.linear"(%z, %w_k) : (tensor<?x24xbf16>, tensor<32x24xbf16>) -> tensor<?x32xbf16>
  %v = "sail.linear"(%z, %w_v) : (tensor<?x24xbf16>, tensor<32x24xbf16>) -> tensor<?x32xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// joint_qkv %y: declined: one product reads `%h`, another `%z`

// -----

// A weight that is given, not read from the checkpoint, cannot be joined.
func.func @keeps_a_weight_that_is_an_argument(%h: tensor<?x24xbf16>, %w_v: tensor<32x24xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %w_q = "sail.weight"() {join = "one", paths = ["q"]} : () -> tensor<64x24xbf16>
  %w_k = "sail.weight"() {join = "one", paths = ["k"]} : () -> tensor<32x24xbf16>
  %q = "sail.linear"(%h, %w_q) : (tensor<?x24xbf16>, tensor<64x24xbf16>) -> tensor<?x64xbf16>
  %k = "sail.linear"(%h, %w_k) : (tensor<?x24xbf16>, tensor<32x24xbf16>) -> tensor<?x32xbf16>
  %v = "sail.linear"(%h, %w_v) : (tensor<?x24xbf16>, tensor<32x24xbf16>) -> tensor<?x32xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// joint_qkv %y: declined: `%w_v` is not made by `sail.weight`

// -----

// Attention over what an earlier call has stored has no keys of its own.
func.func @keeps_attention_that_stores_nothing(%h: tensor<?x24xbf16>, %w_q: tensor<64x24xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %q = "sail.linear"(%h, %w_q) : (tensor<?x24xbf16>, tensor<64x24xbf16>) -> tensor<?x64xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q, %cache, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// joint_qkv %y: declined: `%cache` is not made by `sail.cache_write`
