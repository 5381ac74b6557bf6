//! test: text

// Names, results of one op, quoted symbols and attributes of every kind come out as they went in.
func.func @vision.taps(%pixels: tensor<?x3x4x4xbf16>, %ids: tensor<?xi32>, %features: tensor<?x4x12xbf16>, %logits: tensor<?x8xbf16>) -> (tensor<?x12xbf16>, tensor<?x2xi32>) {
  %layers.0.w = "sail.weight"() {join = "stack", paths = ["a//b", "c\"d"]} : () -> !sail.packed<[2, 96, 64], "bf16">
  %embed_tokens = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<300x12xbf16>
  %patches = "sail.patches"(%pixels) {patch = 2 : i64} : (tensor<?x3x4x4xbf16>) -> tensor<?x4x12xbf16>
  %attended = "sail.tile_attention"(%patches) {heads = 2 : i64} : (tensor<?x4x12xbf16>) -> tensor<?x4x4xbf16>
  "sail.tap"(%attended) {name = "vit.0"} : (tensor<?x4x4xbf16>) -> ()
  %x = "sail.embed"(%ids, %embed_tokens) : (tensor<?xi32>, tensor<300x12xbf16>) -> tensor<?x12xbf16>
  %y = "sail.splice"(%x, %features, %ids) : (tensor<?x12xbf16>, tensor<?x4x12xbf16>, tensor<?xi32>) -> tensor<?x12xbf16>
  %route:2 = "sail.route"(%logits) {renormalize = false, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  return %y, %route#0 : tensor<?x12xbf16>, tensor<?x2xi32>
}
// ==>
// func.func @vision.taps(%pixels: tensor<?x3x4x4xbf16>, %ids: tensor<?xi32>, %features: tensor<?x4x12xbf16>, %logits: tensor<?x8xbf16>) -> (tensor<?x12xbf16>, tensor<?x2xi32>) {
//   %layers.0.w = "sail.weight"() {join = "stack", paths = ["a//b", "c\22d"]} : () -> !sail.packed<[2, 96, 64], "bf16">
//   %embed_tokens = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<300x12xbf16>
//   %patches = "sail.patches"(%pixels) {patch = 2 : i64} : (tensor<?x3x4x4xbf16>) -> tensor<?x4x12xbf16>
//   %attended = "sail.tile_attention"(%patches) {heads = 2 : i64} : (tensor<?x4x12xbf16>) -> tensor<?x4x4xbf16>
//   "sail.tap"(%attended) {name = "vit.0"} : (tensor<?x4x4xbf16>) -> ()
//   %x = "sail.embed"(%ids, %embed_tokens) : (tensor<?xi32>, tensor<300x12xbf16>) -> tensor<?x12xbf16>
//   %y = "sail.splice"(%x, %features, %ids) : (tensor<?x12xbf16>, tensor<?x4x12xbf16>, tensor<?xi32>) -> tensor<?x12xbf16>
//   %route:2 = "sail.route"(%logits) {renormalize = false, top_k = 2 : i64} : (tensor<?x8xbf16>) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
//   return %y, %route#0 : tensor<?x12xbf16>, tensor<?x2xi32>
// }

// -----

// The plan's ops have attributes only.
func.func @plan() {
  "sail.buffer"() {bytes = "128*r", name = "x", offset = "0", place = "arena", type = "tensor<?x64xbf16>"} : () -> ()
  "sail.launch"() {end = 1 : i64, first = 0 : i64, rank = 0 : i64} : () -> ()
  "sail.step"() {arguments = ["x"], grid = "tokens*1/16 x 1", index = 0 : i64, kernel = "k", label = "layers.0.mlp", waits = []} : () -> ()
  return
}
// ==> unchanged
