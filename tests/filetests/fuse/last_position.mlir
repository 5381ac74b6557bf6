//! test: fuse
//! rules: last_position

// Rows are chosen before the head and the norm: both see the wanted ones only.
func.func @fuses(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %head: tensor<300x64xbf16>, %outputs: tensor<?xi32>) -> tensor<?x300xbf16> {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  %all = "sail.linear"(%h, %head) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
  %logits = "sail.select_rows"(%all, %outputs) : (tensor<?x300xbf16>, tensor<?xi32>) -> tensor<?x300xbf16>
  return %logits : tensor<?x300xbf16>
}
// ==>
// last_position %logits: fired
// last_position %h.selected: fired
// last_position %x.selected: declined: `%x` is made by neither a product nor a norm
// func.func @fuses(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %head: tensor<300x64xbf16>, %outputs: tensor<?xi32>) -> tensor<?x300xbf16> {
//   %x.selected = "sail.select_rows"(%x, %outputs) : (tensor<?x64xbf16>, tensor<?xi32>) -> tensor<?x64xbf16>
//   %h = "sail.rms_norm"(%x.selected, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//   %logits = "sail.linear"(%h, %head) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
//   return %logits : tensor<?x300xbf16>
// }

// -----

// A norm that somebody else reads stays before the choice; the head does not.
func.func @stops_at_a_shared_norm(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %head: tensor<300x64xbf16>, %outputs: tensor<?xi32>) -> tensor<?x300xbf16> {
  %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
  "sail.tap"(%h) {name = "h"} : (tensor<?x64xbf16>) -> ()
  %all = "sail.linear"(%h, %head) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
  %logits = "sail.select_rows"(%all, %outputs) : (tensor<?x300xbf16>, tensor<?xi32>) -> tensor<?x300xbf16>
  return %logits : tensor<?x300xbf16>
}
// ==>
// last_position %logits: fired
// last_position %h.selected: declined: `%h` is also read by `sail.tap`
// func.func @stops_at_a_shared_norm(%x: tensor<?x64xbf16>, %norm: tensor<64xbf16>, %head: tensor<300x64xbf16>, %outputs: tensor<?xi32>) -> tensor<?x300xbf16> {
//   %h = "sail.rms_norm"(%x, %norm) {eps = 9.9999999999999995E-7 : f64} : (tensor<?x64xbf16>, tensor<64xbf16>) -> tensor<?x64xbf16>
//   "sail.tap"(%h) {name = "h"} : (tensor<?x64xbf16>) -> ()
//   %h.selected = "sail.select_rows"(%h, %outputs) : (tensor<?x64xbf16>, tensor<?xi32>) -> tensor<?x64xbf16>
//   %logits = "sail.linear"(%h.selected, %head) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
//   return %logits : tensor<?x300xbf16>
// }

// -----

// All logits are asked for as well.
func.func @keeps_logits_that_are_returned(%x: tensor<?x64xbf16>, %head: tensor<300x64xbf16>, %outputs: tensor<?xi32>) -> (tensor<?x300xbf16>, tensor<?x300xbf16>) {
  %all = "sail.linear"(%x, %head) : (tensor<?x64xbf16>, tensor<300x64xbf16>) -> tensor<?x300xbf16>
  %logits = "sail.select_rows"(%all, %outputs) : (tensor<?x300xbf16>, tensor<?xi32>) -> tensor<?x300xbf16>
  return %logits, %all : tensor<?x300xbf16>, tensor<?x300xbf16>
}
// ==> unchanged
// last_position %logits: declined: `%all` is also read by `func.return`

// -----

// Attention looks at other rows: choosing rows does not commute with it.
func.func @keeps_a_choice_after_attention(%q: tensor<?x64xbf16>, %cache: !sail.kv_cache<[2, 16]>, %rows: tensor<?x2xi32>, %outputs: tensor<?xi32>) -> tensor<?x64xbf16> {
  %all = "sail.attention"(%q, %cache, %rows) : (tensor<?x64xbf16>, !sail.kv_cache<[2, 16]>, tensor<?x2xi32>) -> tensor<?x64xbf16>
  %y = "sail.select_rows"(%all, %outputs) : (tensor<?x64xbf16>, tensor<?xi32>) -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
// ==> unchanged
// last_position %y: declined: `%all` is made by neither a product nor a norm
