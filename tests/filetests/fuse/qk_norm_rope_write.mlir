//! test: fuse
//! rules: qk_norm_rope_write

// Between the joint product and attention stands one op.
func.func @fuses(%qkv: tensor<?x128xbf16>, %q_norm: tensor<16xbf16>, %k_norm: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %q = "sail.columns"(%qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x128xbf16>) -> tensor<?x64xbf16>
  %k = "sail.columns"(%qkv) {count = 32 : i64, first = 64 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %v = "sail.columns"(%qkv) {count = 32 : i64, first = 96 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %q.n = "sail.head_norm"(%q, %q_norm) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
  %k.n = "sail.head_norm"(%k, %k_norm) {eps = 1.000000e-05 : f64} : (tensor<?x32xbf16>, tensor<16xbf16>) -> tensor<?x32xbf16>
  %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %k.r = "sail.rope"(%k.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k.r, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// qk_norm_rope_write %y: fired
// func.func @fuses(%qkv: tensor<?x128xbf16>, %q_norm: tensor<16xbf16>, %k_norm: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
//   %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
//   %q.r:2 = "sail.qk_norm_rope_write"(%qkv, %q_norm, %k_norm, %rows, %cache) {eps = 1.000000e-05 : f64, head_dim = 16 : i64, heads = 4 : i64, kv_heads = 2 : i64, theta = 1.000000e+06 : f64} : (tensor<?x128xbf16>, tensor<16xbf16>, tensor<16xbf16>, tensor<?x2xi32>, !sail.kv_cache<[2, 16]>) -> (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>)
//   %y = "sail.attention"(%q.r#0, %q.r#1, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

// Keys that are tapped exist as such.
func.func @keeps_tapped_keys(%qkv: tensor<?x128xbf16>, %q_norm: tensor<16xbf16>, %k_norm: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %q = "sail.columns"(%qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x128xbf16>) -> tensor<?x64xbf16>
  %k = "sail.columns"(%qkv) {count = 32 : i64, first = 64 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %v = "sail.columns"(%qkv) {count = 32 : i64, first = 96 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %q.n = "sail.head_norm"(%q, %q_norm) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
  %k.n = "sail.head_norm"(%k, %k_norm) {eps = 1.000000e-05 : f64} : (tensor<?x32xbf16>, tensor<16xbf16>) -> tensor<?x32xbf16>
  %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %k.r = "sail.rope"(%k.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
  "sail.tap"(%k.r) {name = "k"} : (tensor<?x32xbf16>) -> ()
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k.r, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// qk_norm_rope_write %y: declined: `%k.r` is also read by `sail.tap`

// -----

// One epsilon for queries and keys is what the op has room for.
func.func @keeps_norms_that_differ(%qkv: tensor<?x128xbf16>, %q_norm: tensor<16xbf16>, %k_norm: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %q = "sail.columns"(%qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x128xbf16>) -> tensor<?x64xbf16>
  %k = "sail.columns"(%qkv) {count = 32 : i64, first = 64 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %v = "sail.columns"(%qkv) {count = 32 : i64, first = 96 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %q.n = "sail.head_norm"(%q, %q_norm) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
  %k.n = "sail.head_norm"(%k, %k_norm) {eps = 1.000000e-06 : f64} : (tensor<?x32xbf16>, tensor<16xbf16>) -> tensor<?x32xbf16>
  %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %k.r = "sail.rope"(%k.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k.r, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// qk_norm_rope_write %y: declined: queries and keys differ in their epsilon
// func.func @keeps_norms_that_differ(%qkv: tensor<?x128xbf16>, %q_norm: tensor<16xbf16>, %k_norm: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
//   %q = "sail.columns"(%qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x128xbf16>) -> tensor<?x64xbf16>
//   %k = "sail.columns"(%qkv) {count = 32 : i64, first = 64 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
//   %v = "sail.columns"(%qkv) {count = 32 : i64, first = 96 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
//   %q.n = "sail.head_norm"(%q, %q_norm) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
//   %k.n = "sail.head_norm"(%k, %k_norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x32xbf16>, tensor<16xbf16>) -> tensor<?x32xbf16>
//   %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//   %k.r = "sail.rope"(%k.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
//   %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
//   %after = "sail.cache_write"(%cache, %k.r, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
//   %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

// Keys at other positions than their queries.
func.func @keeps_rows_that_differ(%qkv: tensor<?x128xbf16>, %q_norm: tensor<16xbf16>, %k_norm: tensor<16xbf16>, %rows: tensor<?x2xi32>, %other: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %q = "sail.columns"(%qkv) {count = 64 : i64, first = 0 : i64} : (tensor<?x128xbf16>) -> tensor<?x64xbf16>
  %k = "sail.columns"(%qkv) {count = 32 : i64, first = 64 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %v = "sail.columns"(%qkv) {count = 32 : i64, first = 96 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %q.n = "sail.head_norm"(%q, %q_norm) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
  %k.n = "sail.head_norm"(%k, %k_norm) {eps = 1.000000e-05 : f64} : (tensor<?x32xbf16>, tensor<16xbf16>) -> tensor<?x32xbf16>
  %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %k.r = "sail.rope"(%k.n, %other) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k.r, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// qk_norm_rope_write %y: declined: queries and keys are at different rows

// -----

// Columns in another order than q, k, v.
func.func @keeps_columns_in_another_order(%qkv: tensor<?x128xbf16>, %q_norm: tensor<16xbf16>, %k_norm: tensor<16xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x64xbf16> {
  %q = "sail.columns"(%qkv) {count = 64 : i64, first = 32 : i64} : (tensor<?x128xbf16>) -> tensor<?x64xbf16>
  %k = "sail.columns"(%qkv) {count = 32 : i64, first = 0 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %v = "sail.columns"(%qkv) {count = 32 : i64, first = 96 : i64} : (tensor<?x128xbf16>) -> tensor<?x32xbf16>
  %q.n = "sail.head_norm"(%q, %q_norm) {eps = 1.000000e-05 : f64} : (tensor<?x64xbf16>, tensor<16xbf16>) -> tensor<?x64xbf16>
  %k.n = "sail.head_norm"(%k, %k_norm) {eps = 1.000000e-05 : f64} : (tensor<?x32xbf16>, tensor<16xbf16>) -> tensor<?x32xbf16>
  %q.r = "sail.rope"(%q.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x64xbf16>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %k.r = "sail.rope"(%k.n, %rows) {head_dim = 16 : i64, theta = 1.000000e+06 : f64} : (tensor<?x32xbf16>, tensor<?x2xi32>) -> tensor<?x32xbf16>
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %k.r, %v, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.attention"(%q.r, %after, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// qk_norm_rope_write %y: declined: `%qkv` is not q, then k, then v
