//! test: fuse
//! rules: linear_route

func.func @fuses(%h: tensor<?x64xbf16>, %router: tensor<8x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>) {
  %logits = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  return %route#0, %route#1 : tensor<?x2xi32>, tensor<?x2xbf16>
}
// ==>
// linear_route %route: fired
// func.func @fuses(%h: tensor<?x64xbf16>, %router: tensor<8x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>) {
//   %route:2 = "sail.linear_route"(%h, %router) {renormalize = true, top_k = 2 : i64} : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
//   return %route#0, %route#1 : tensor<?x2xi32>, tensor<?x2xbf16>
// }

// -----

// Logits that are tapped exist as such: so it is in `@prefill.taps`.
func.func @keeps_tapped_logits(%h: tensor<?x64xbf16>, %router: tensor<8x64xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>) {
  %logits = "sail.linear"(%h, %router) : (tensor<?x64xbf16>, tensor<8x64xbf16>) -> tensor<?x8xbf16>
  "sail.tap"(%logits) {name = "router.0"} : (tensor<?x8xbf16>) -> ()
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  return %route#0, %route#1 : tensor<?x2xi32>, tensor<?x2xbf16>
}
// ==> unchanged
// linear_route %route: declined: `%logits` is also read by `sail.tap`

// -----

func.func @keeps_logits_that_are_given(%logits: tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>) {
  %route:2 = "sail.route"(%logits) {renormalize = true, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  return %route#0, %route#1 : tensor<?x2xi32>, tensor<?x2xbf16>
}
// ==> unchanged
// linear_route %route: declined: `%logits` is not made by `sail.linear`
