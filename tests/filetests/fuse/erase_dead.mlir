//! test: fuse
//! rules:

// Nobody reads `z`, and then nobody reads what it was made of.
func.func @erases_what_nobody_reads(%x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
  %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> tensor<64x64xbf16>
  %h = "sail.linear"(%x, %w) : (tensor<?x64xbf16>, tensor<64x64xbf16>) -> tensor<?x64xbf16>
  %z = "sail.silu"(%h) : (tensor<?x64xbf16>) -> tensor<?x64xbf16>
  %y = "sail.gelu"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==>
// func.func @erases_what_nobody_reads(%x: tensor<?x64xbf16>) -> tensor<?x64xbf16> {
//   %y = "sail.gelu"(%x) : (tensor<?x64xbf16>) -> tensor<?x64xbf16>
//   return %y : tensor<?x64xbf16>
// }

// -----

// A tap and a written cache matter although nothing is read from them.
func.func @keeps_what_has_an_effect(%x: tensor<?x32xbf16>, %rows: tensor<?x2xi32>) -> tensor<?x32xbf16> {
  %cache = "sail.cache"() {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[2, 16]>
  %after = "sail.cache_write"(%cache, %x, %x, %rows) : (!sail.kv_cache<[2, 16]>, tensor<?x32xbf16>, tensor<?x32xbf16>, tensor<?x2xi32>) -> !sail.kv_cache<[2, 16]>
  %y = "sail.silu"(%x) : (tensor<?x32xbf16>) -> tensor<?x32xbf16>
  "sail.tap"(%y) {name = "y"} : (tensor<?x32xbf16>) -> ()
  return %x : tensor<?x32xbf16>
}
// ==> unchanged
