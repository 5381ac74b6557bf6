//! Planning for a CUDA target.

use expect_test::expect;
use sail_ir::Scheme;
use sail_ir::plan::{ControlField, Count, Place, Plan, Port, Step};
use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

use super::bounds::Bounds;
use super::build::{Draft, Given, draft};
use super::explain;
use crate::dialect;
use crate::error::CompileError;
use crate::stage::{Kernels, Module};

/// The plan of a `kernels` module for `sm_90`.
fn planned(text: &str) -> Result<Plan, CompileError> {
    drafted(text).map(|draft| draft.plan)
}

fn drafted(text: &str) -> Result<Draft, CompileError> {
    let context = dialect::context();
    let module = Module::<Kernels>::parse(&context, text, "t.mlir").expect("a module of the stage");
    let bounds = Bounds {
        prefill: vec![16, 64],
        short_prefill: vec![4],
        tapped_prefill: vec![4],
        decode: vec![1],
        wide_decode: vec![16],
        vision: vec![1, 3],
        max_outputs: 2,
        max_positions: 100,
        cache: CacheScheme::Bf16,
    };
    let target = Target::parse("sm_90").unwrap();
    let given = Given { target: &target, bounds: &bounds, placement: None, lock: None };
    draft(&module, given)
}

#[test]
fn every_kernel_is_told_with_its_time_and_why_it_is_shaped_so() {
    let draft = drafted(
        r#"
func.func @decode(%ids: tensor<?xi32>, %rows: tensor<?x2xi32>) -> tensor<?x2048xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<24x2048xbf16>
  %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> !sail.packed<[2048, 2048], "bf16">
  %q = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<24x2048xbf16>) -> tensor<?x2048xbf16>
  %cache = "sail.cache"() {head_dim = 128 : i64, kv_heads = 8 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[8, 128]>
  %x = "sail.attention"(%q, %cache, %rows) : (tensor<?x2048xbf16>, !sail.kv_cache<[8, 128]>, tensor<?x2xi32>) -> tensor<?x2048xbf16>
  %y = "sail.linear"(%x, %w) : (tensor<?x2048xbf16>, !sail.packed<[2048, 2048], "bf16">) -> tensor<?x2048xbf16>
  return %y : tensor<?x2048xbf16>
}"#,
    )
    .unwrap();
    let text = explain::text(&draft, &Target::parse("sm_90").unwrap());
    expect![[r#"
        # Expected times are a model's, not measured.
        decode: 4 steps for 1 token, 22 us expected one after another
          1 x embed.w2048
              4.0 us for 1 row: memory 0.0, products 0.0, ends 4.0
          1 x attention.bf16.h16.g8.e128.alone16x8
              8.0 us for 1 row: memory 2.0, cache 1.0, products 0.2, ends 6.0; 128 blocks in 1 wave
              blocks=16 warps=8: one row fills the chip: 16 x 8 warps for each kv head, of 8
          1 x linear.bf16.tokens.n2048.k2048.rows8x16
              6.0 us for 1 row: memory 2.0, cache 1.0, products 0.1, ends 4.0; 128 blocks in 1 wave
              warps=8 runs=1 share=1 keeps=1: one block of 8 warps for a multiprocessor: there is one run for each
          1 x choose_token.v2048.goes_on
              4.0 us for 1 row: memory 0.0, products 0.0, ends 4.0
        decode.wide: 4 steps for 16 tokens, 52 us expected one after another
          1 x embed.w2048
              4.0 us for 16 rows: memory 0.0, products 0.0, ends 4.0
          1 x attention.bf16.h16.g8.e128.alone16x8
              37.7 us for 16 rows: memory 31.7, cache 15.2, products 3.2, ends 6.0; 2048 blocks in 16 waves
              blocks=16 warps=8: one row fills the chip: 16 x 8 warps for each kv head, of 8
          1 x linear.bf16.tokens.n2048.k2048.rows16x16
              6.0 us for 16 rows: memory 2.0, cache 1.0, products 0.2, ends 4.0; 128 blocks in 1 wave
              warps=8 runs=1 share=1 keeps=1: one block of 8 warps for a multiprocessor: several eights of rows take the registers of more
          1 x choose_token.v2048.goes_on
              4.0 us for 16 rows: memory 0.0, products 0.0, ends 4.0
    "#]]
    .assert_eq(&text);
    // Attention is the same code in both, and two problems for a lock.
    let names: Vec<_> = draft.chosen.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "attention.bf16.h16.g8.e128.alone.most1",
            "attention.bf16.h16.g8.e128.alone.most16",
            "linear.bf16.tokens.n2048.k2048.rows.most1",
            "linear.bf16.tokens.n2048.k2048.rows.most16",
        ]
    );
}

#[test]
fn a_step_has_a_block_of_threads_for_each_item() {
    let plan = planned(
        r#"
func.func @vision(%pixels: tensor<?x3x28x28xbf16>) -> tensor<?x4x588xbf16> {
  %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> tensor<588xbf16>
  %p = "sail.patches"(%pixels) {patch = 14 : i64} : (tensor<?x3x28x28xbf16>) -> tensor<?x4x588xbf16>
  %y = "sail.rms_norm"(%p, %w) {eps = 1.0e-05 : f64} : (tensor<?x4x588xbf16>, tensor<588xbf16>) -> tensor<?x4x588xbf16>
  return %y : tensor<?x4x588xbf16>
}"#,
    )
    .unwrap();
    let function = plan.function("vision").unwrap();
    let kernels: Vec<_> =
        function.steps.iter().map(|(_, step)| (&plan.kernels[step.kernel], step.grid)).collect();
    let [(patches, _), (norm, grid)] = kernels[..] else { panic!("two steps") };
    assert_eq!(patches.cuda.as_ref().unwrap().entry, "patches_c3_s28_p14");
    let norm = norm.cuda.as_ref().unwrap();
    // 147 pieces of four values, a block a row.
    assert_eq!((norm.threads, norm.shared_bytes), (160, 32));
    assert_eq!((grid.count, grid.items(3)), (Count::Images, 12));
    assert_eq!(function.workspace_bytes, 0);
}

#[test]
fn ops_without_a_kernel_are_told_all_at_once_and_each_once() {
    let error = planned(
        r#"
func.func @decode(%ids: tensor<?xi32>) -> tensor<?x24xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<24x8xbf16>
  %norm = "sail.weight"() {join = "one", paths = ["n"]} : () -> tensor<8xbf16>
  %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> !sail.packed<[24, 8], "bf16">
  %r = "sail.weight"() {join = "one", paths = ["r"]} : () -> !sail.packed<[4, 8], "bf16">
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<24x8xbf16>) -> tensor<?x8xbf16>
  %route:2 = "sail.linear_route"(%x, %r) {top_k = 2 : i64, renormalize = true} : (tensor<?x8xbf16>, !sail.packed<[4, 8], "bf16">) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %again:2 = "sail.linear_route"(%x, %r) {top_k = 2 : i64, renormalize = true} : (tensor<?x8xbf16>, !sail.packed<[4, 8], "bf16">) -> (tensor<?x2xi32>, tensor<?x2xbf16>)
  %y = "sail.norm_linear"(%x, %norm, %w) {eps = 1.0e-05 : f64} : (tensor<?x8xbf16>, tensor<8xbf16>, !sail.packed<[24, 8], "bf16">) -> tensor<?x24xbf16>
  %z = "sail.norm_linear"(%x, %norm, %w) {eps = 1.0e-05 : f64} : (tensor<?x8xbf16>, tensor<8xbf16>, !sail.packed<[24, 8], "bf16">) -> tensor<?x24xbf16>
  %s = "sail.add"(%y, %z) : (tensor<?x24xbf16>, tensor<?x24xbf16>) -> tensor<?x24xbf16>
  return %s : tensor<?x24xbf16>
}"#,
    )
    .unwrap_err();
    let CompileError::NoTemplate { target, ops } = error else { panic!("{error}") };
    assert_eq!(target, "sm_90");
    assert_eq!(ops, ["sail.linear_route"]);
}

#[test]
fn a_product_of_few_rows_norms_itself_and_one_of_many_has_a_step_before_it() {
    let body = r#"
func.func @NAME(%ids: tensor<?xi32>) -> tensor<?x24xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<24x8xbf16>
  %norm = "sail.weight"() {join = "one", paths = ["n"]} : () -> tensor<8xbf16>
  %w = "sail.weight"() {join = "one", paths = ["w"]} : () -> !sail.packed<[24, 8], "bf16">
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<24x8xbf16>) -> tensor<?x8xbf16>
  %y = "sail.norm_linear"(%x, %norm, %w) {eps = 1.0e-05 : f64} : (tensor<?x8xbf16>, tensor<8xbf16>, !sail.packed<[24, 8], "bf16">) -> tensor<?x24xbf16>
  return %y : tensor<?x24xbf16>
}"#;
    let families = |view: &str, name: &str| -> Vec<String> {
        let plan = planned(&body.replace("NAME", view)).unwrap();
        let steps = &plan.function(name).unwrap().steps;
        steps.iter().map(|(_, step)| plan.kernels[step.kernel].family.clone()).collect()
    };
    assert_eq!(families("decode", "decode"), ["embed", "linear", "choose_token"]);
    assert_eq!(families("decode", "decode.wide"), ["embed", "linear", "choose_token"]);
    assert_eq!(families("prefill", "prefill.short"), ["embed", "linear", "choose_token"]);
    assert_eq!(families("prefill", "prefill"), ["embed", "rms_norm", "linear", "choose_token"]);
}

#[test]
fn a_step_of_decode_chooses_as_the_control_block_says_and_makes_the_next_call_s() {
    let body = r#"
func.func @NAME(%ids: tensor<?xi32>) -> tensor<?x72xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<72x72xbf16>
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<72x72xbf16>) -> tensor<?x72xbf16>
  return %x : tensor<?x72xbf16>
}"#;
    let last = |name: &str| {
        let plan = planned(&body.replace("NAME", name)).unwrap();
        let function = plan.function(name).unwrap();
        let (_, step) = function.steps.iter().last().unwrap();
        let kernel = &plan.kernels[step.kernel];
        let places = step.arguments.iter().map(|id| {
            let buffer = &function.buffers[*id];
            (buffer.place.clone(), buffer.row_dims.iter().product::<u64>())
        });
        (kernel.symbol.clone(), kernel.writes.clone(), places.collect::<Vec<_>>())
    };
    let control = |field| Place::Control { field };
    let port = |port| Place::Port { port };
    let (symbol, writes, places) = last("decode");
    assert_eq!((symbol.as_str(), writes), ("choose_token.v72.goes_on", vec![2, 3, 4, 5]));
    let want = [
        (port(Port::Logits), 72),
        (control(ControlField::Draws), 8),
        (port(Port::Seen), 3),
        (control(ControlField::Ids), 1),
        (control(ControlField::Rows), 2),
        (port(Port::Chosen), 2),
    ];
    assert_eq!(places, want);
    let (symbol, writes, places) = last("prefill");
    assert_eq!((symbol.as_str(), writes), ("choose_token.v72", vec![1]));
    assert_eq!(places, [(port(Port::Logits), 72), (port(Port::Chosen), 2)]);
}

#[test]
fn weights_are_rows() {
    let plan = planned(
        r#"
func.func @decode(%ids: tensor<?xi32>) -> tensor<?x8xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["t"]} : () -> !sail.packed<[24, 8], "bf16">
  %x = "sail.embed"(%ids, %table) : (tensor<?xi32>, !sail.packed<[24, 8], "bf16">) -> tensor<?x8xbf16>
  return %x : tensor<?x8xbf16>
}"#,
    )
    .unwrap();
    let (_, weight) = plan.weights.iter().next().unwrap();
    assert_eq!(weight.layout, "[24, 8] bf16 rows of 128 bytes");
    assert_eq!(weight.bytes, 32 * Scheme::Bf16.row_bytes(8));
    let (_, kernel) = plan.kernels.iter().next().unwrap();
    assert_eq!(kernel.symbol, "embed_packed.bf16.w8.p64");
}

#[test]
fn attention_of_few_rows_has_scratch_of_its_own_and_counters_that_all_share() {
    let plan = planned(
        r#"
func.func @decode(%ids: tensor<?xi32>, %rows: tensor<?x2xi32>) -> tensor<?x256xbf16> {
  %table = "sail.weight"() {join = "one", paths = ["t"]} : () -> tensor<24x256xbf16>
  %q = "sail.embed"(%ids, %table) : (tensor<?xi32>, tensor<24x256xbf16>) -> tensor<?x256xbf16>
  %cache = "sail.cache"() {head_dim = 128 : i64, kv_heads = 1 : i64, layer = 0 : i64} : () -> !sail.kv_cache<[1, 128]>
  %next = "sail.cache"() {head_dim = 128 : i64, kv_heads = 1 : i64, layer = 1 : i64} : () -> !sail.kv_cache<[1, 128]>
  %x = "sail.attention"(%q, %cache, %rows) : (tensor<?x256xbf16>, !sail.kv_cache<[1, 128]>, tensor<?x2xi32>) -> tensor<?x256xbf16>
  %y = "sail.attention"(%x, %next, %rows) : (tensor<?x256xbf16>, !sail.kv_cache<[1, 128]>, tensor<?x2xi32>) -> tensor<?x256xbf16>
  return %y : tensor<?x256xbf16>
}"#,
    )
    .unwrap();
    let function = plan.function("decode").unwrap();
    let steps: Vec<_> = function.steps.iter().map(|(_, step)| step).collect();
    let [_, first, second, _] = steps[..] else { panic!("four steps") };
    let own = |step: &Step| {
        let buffers = step.arguments[5..].iter().map(|id| &function.buffers[*id]);
        buffers.map(|buffer| (buffer.place.clone(), buffer.bytes.per_row)).collect::<Vec<_>>()
    };
    let [(Place::Arena { .. }, scratch), (Place::Counters, counters)] = own(first)[..] else {
        panic!("{:?}", own(first));
    };
    // 64 blocks at most, two vectors each: 128 sums, the largest score, the sum of weights.
    assert_eq!((scratch, counters), (64 * 2 * 4 * 132, 4));
    assert_eq!(own(second)[1], (Place::Counters, 4));
    assert_eq!(second.waits.len(), 1);
    assert_eq!(plan.kernels[first.kernel].writes, [4, 5, 6]);
    plan.verify().unwrap();
}
