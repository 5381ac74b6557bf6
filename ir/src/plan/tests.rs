//! Each rule of `Plan::verify`, broken once.

use expect_test::expect;

use super::*;

/// Two launches: embed, norm, product into logits; then a second norm that reuses the arena.
pub(crate) fn small() -> Plan {
    let kernel = |symbol: &str, offset, arguments| Kernel {
        symbol: symbol.to_owned(),
        family: symbol.split('.').next().unwrap().to_owned(),
        offset,
        arguments,
        writes: vec![arguments - 1],
        cuda: None,
    };
    let kernels =
        [kernel("embed.d64", 0, 3), kernel("rms_norm.d64", 16, 3), kernel("linear", 32, 3)];
    let weight = |offset, bytes| Weight {
        paths: vec![format!("w{offset}")],
        shard: [0, 1],
        layout: "bf16 rows".to_owned(),
        offset,
        bytes,
    };
    let weights = [weight(0, 1280), weight(1280, 128), weight(1536, 256)];
    let buffer = |name: &str, place, bytes: Affine, row_dims: &[u64], count| Buffer {
        name: name.to_owned(),
        place,
        dtype: DType::Bf16,
        bytes,
        row_dims: row_dims.to_vec(),
        count,
    };
    let rows = |per_row| Affine { per_row, fixed: 0 };
    let fixed = |fixed| Affine { per_row: 0, fixed };
    let tokens = Some(Count::Tokens);
    let buffers = [
        buffer("ids", Place::Control { field: ControlField::Ids }, rows(4), &[], tokens),
        buffer("table", Place::Weight { weight: WeightId(0) }, fixed(1280), &[10, 64], None),
        buffer("x", Place::Arena { offset: rows(0) }, rows(256), &[64], tokens),
        buffer("norm", Place::Weight { weight: WeightId(1) }, fixed(128), &[64], None),
        buffer("h", Place::Arena { offset: rows(256) }, rows(256), &[64], tokens),
        buffer("head", Place::Weight { weight: WeightId(2) }, fixed(256), &[2, 64], None),
        buffer("logits", Place::Port { port: Port::Logits }, rows(4), &[2], tokens),
        buffer("z", Place::Arena { offset: rows(0) }, rows(256), &[64], tokens),
    ];
    let step = |label: &str, kernel, arguments: [u32; 3], waits: &[u32]| Step {
        label: label.to_owned(),
        kernel: KernelId(kernel),
        arguments: arguments.map(BufferId).to_vec(),
        grid: Grid { count: Count::Tokens, per: 1, rows_per_block: 4, columns: 2, run: 1 },
        waits: waits.iter().copied().map(StepId).collect(),
        cost: Cost { weight_bytes: 100, row_bytes: 10, row_operations: 1000, ..Cost::default() },
    };
    let steps = [
        step("embed", 0, [0, 1, 2], &[]),
        step("norm", 1, [2, 3, 4], &[0]),
        step("head", 2, [4, 5, 6], &[1]),
        step("again", 1, [4, 3, 7], &[]),
    ];
    let decode = Function {
        name: "decode".to_owned(),
        count: Count::Tokens,
        classes: vec![1, 4, 8],
        max_outputs: 8,
        arena_bytes: rows(512),
        workspace_bytes: 0,
        buffers: buffers.into_iter().collect(),
        steps: steps.into_iter().collect(),
        launches: vec![
            Launch { rank: 0, steps: [StepId(0), StepId(3)] },
            Launch { rank: 0, steps: [StepId(3), StepId(4)] },
        ],
    };
    Plan {
        functions: vec![decode],
        kernels: kernels.into_iter().collect(),
        weights: weights.into_iter().collect(),
        cache: CacheSpec {
            layers: 0,
            kv_heads: 1,
            head_dim: 16,
            scheme: CacheScheme::Bf16,
            block_bytes: 4096,
            max_positions: 128,
        },
    }
}

/// The rule that a changed plan breaks.
fn broken(change: impl FnOnce(&mut Plan)) -> &'static str {
    let mut plan = small();
    change(&mut plan);
    plan.verify().map_or_else(|error| error.rule, |()| "none")
}

fn decode(plan: &mut Plan) -> &mut Function {
    &mut plan.functions[0]
}

#[test]
fn a_sound_plan_passes() {
    small().verify().unwrap();
    small().verify_inside(48, 1792).unwrap();
}

#[test]
fn a_choice_is_of_a_number_of_experts_that_can_be_counted() {
    let chosen = |of, dtype| {
        broken(move |plan| {
            let buffer = &mut decode(plan).buffers[BufferId(2)];
            *buffer = Buffer {
                place: Place::Choice { layer: 3, of },
                dtype,
                row_dims: vec![8],
                ..buffer.clone()
            };
        })
    };
    assert_eq!(chosen(128, DType::I32), "none");
    assert_eq!(chosen(128, DType::Bf16), "plan.sizes");
    assert_eq!(chosen(0, DType::I32), "plan.sizes");
    assert_eq!(chosen(u32::MAX, DType::I32), "plan.sizes");
}

#[test]
fn ids_and_rows_are_written_by_the_last_step_alone() {
    let writes = |step: u32, field| {
        broken(move |plan| {
            let function = decode(plan);
            let place = Place::Control { field };
            let control = Buffer { place, ..function.buffers[BufferId(0)].clone() };
            let written = function.buffers.push(control);
            *function.steps[StepId(step)].arguments.last_mut().unwrap() = written;
        })
    };
    assert_eq!(writes(3, ControlField::Ids), "none");
    assert_eq!(writes(3, ControlField::Rows), "none");
    assert_eq!(writes(3, ControlField::PageTable), "plan.called_right");
    assert_eq!(writes(2, ControlField::Ids), "plan.called_right");
}

#[test]
fn only_kernels_of_a_cuda_target_count() {
    let counters = |plan: &mut Plan| {
        let buffer = &mut decode(plan).buffers[BufferId(2)];
        *buffer = Buffer { place: Place::Counters, ..buffer.clone() };
    };
    assert_eq!(broken(counters), "plan.called_right");
    let on_cuda = broken(|plan| {
        counters(plan);
        let kernels = plan.kernels.iter().map(|(_, kernel)| Kernel {
            cuda: Some(Cuda {
                entry: "k".to_owned(),
                threads: 32,
                shared_bytes: 0,
                cluster: 1,
                most_blocks: 0,
                tensor_maps: Vec::new(),
            }),
            ..kernel.clone()
        });
        plan.kernels = kernels.collect();
    });
    assert_eq!(on_cuda, "none");
}

#[test]
fn kernels_and_weights_end_inside_their_sections() {
    assert_eq!(small().verify_inside(32, 1792).unwrap_err().rule, "plan.inside");
    assert_eq!(small().verify_inside(48, 1791).unwrap_err().rule, "plan.inside");
}

#[test]
fn classes_ascend_from_at_least_one() {
    for classes in [vec![], vec![0, 1], vec![1, 1], vec![4, 1]] {
        assert_eq!(broken(|plan| decode(plan).classes = classes), "plan.classes");
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    let huge = Affine { per_row: u64::MAX / 2, fixed: 0 };
    assert_eq!(broken(|plan| decode(plan).arena_bytes = huge), "plan.sizes");
    assert_eq!(broken(|plan| decode(plan).buffers[BufferId(2)].bytes = huge), "plan.sizes");
    let dims = vec![u64::MAX, 2];
    assert_eq!(broken(|plan| decode(plan).buffers[BufferId(2)].row_dims = dims), "plan.sizes");
    assert_eq!(broken(|plan| plan.cache.block_bytes = 256), "plan.sizes");
}

#[test]
fn a_buffer_holds_the_rows_of_every_class() {
    let change = |plan: &mut Plan| decode(plan).buffers[BufferId(2)].row_dims = vec![129];
    assert_eq!(broken(change), "plan.sizes");
    let change = |plan: &mut Plan| decode(plan).buffers[BufferId(2)].count = Some(Count::Images);
    assert_eq!(broken(change), "plan.sizes");
}

#[test]
fn buffers_stay_inside_the_arena_and_their_weight() {
    let end = Place::Arena { offset: Affine { per_row: 256, fixed: 256 } };
    assert_eq!(broken(|plan| decode(plan).buffers[BufferId(4)].place = end), "plan.inside");
    let beyond = Place::Weight { weight: WeightId(9) };
    assert_eq!(broken(|plan| decode(plan).buffers[BufferId(3)].place = beyond), "plan.inside");
    let more = Affine { per_row: 0, fixed: 130 };
    assert_eq!(broken(|plan| decode(plan).buffers[BufferId(3)].bytes = more), "plan.inside");
    let layer = Place::Cache { layer: 0 };
    assert_eq!(broken(|plan| decode(plan).buffers[BufferId(3)].place = layer), "plan.inside");
}

#[test]
fn offsets_are_aligned_in_every_class() {
    let odd = Place::Arena { offset: Affine { per_row: 128, fixed: 0 } };
    assert_eq!(broken(|plan| decode(plan).buffers[BufferId(2)].place = odd), "plan.aligned");
    assert_eq!(broken(|plan| plan.weights[WeightId(1)].offset = 8), "plan.aligned");
}

#[test]
fn launches_hold_every_step_once_in_order() {
    assert_eq!(broken(|plan| decode(plan).launches.truncate(1)), "plan.cut");
    assert_eq!(broken(|plan| decode(plan).launches[1].steps[0] = StepId(2)), "plan.cut");
    assert_eq!(broken(|plan| decode(plan).launches[1].steps[1] = StepId(5)), "plan.cut");
    assert_eq!(broken(|plan| decode(plan).launches[0].rank = 1), "plan.cut");
    let steps = [StepId(4), StepId(4)];
    assert_eq!(broken(|plan| decode(plan).launches.push(Launch { rank: 0, steps })), "plan.cut");
}

#[test]
fn a_step_is_called_as_its_kernel_wants() {
    let change = |plan: &mut Plan| decode(plan).steps[StepId(1)].kernel = KernelId(3);
    assert_eq!(broken(change), "plan.called_right");
    let change = |plan: &mut Plan| decode(plan).steps[StepId(1)].arguments.truncate(2);
    assert_eq!(broken(change), "plan.called_right");
    let change = |plan: &mut Plan| decode(plan).steps[StepId(1)].arguments[0] = BufferId(8);
    assert_eq!(broken(change), "plan.called_right");
    let change = |plan: &mut Plan| decode(plan).steps[StepId(1)].grid.rows_per_block = 0;
    assert_eq!(broken(change), "plan.called_right");
    assert_eq!(broken(|plan| plan.kernels[KernelId(0)].writes = vec![3]), "plan.called_right");
    assert_eq!(broken(|plan| plan.kernels[KernelId(0)].writes = vec![]), "plan.called_right");
}

#[test]
fn weights_and_the_control_block_are_never_written() {
    assert_eq!(broken(|plan| plan.kernels[KernelId(2)].writes = vec![1]), "plan.called_right");
    assert_eq!(broken(|plan| plan.kernels[KernelId(0)].writes = vec![0]), "plan.called_right");
}

#[test]
fn waits_point_backwards_inside_a_launch() {
    for wait in [1, 2, 9] {
        let change = |plan: &mut Plan| decode(plan).steps[StepId(1)].waits = vec![StepId(wait)];
        assert_eq!(broken(change), "plan.backwards");
    }
    let change = |plan: &mut Plan| decode(plan).steps[StepId(3)].waits = vec![StepId(2)];
    assert_eq!(broken(change), "plan.backwards");
}

#[test]
fn a_step_reads_only_what_was_written_before_it() {
    assert_eq!(broken(|plan| decode(plan).steps[StepId(1)].waits.clear()), "plan.defined");
    let change = |plan: &mut Plan| decode(plan).steps[StepId(2)].arguments[0] = BufferId(7);
    assert_eq!(broken(change), "plan.defined");
    let change = |plan: &mut Plan| plan.kernels[KernelId(0)].arguments = 2;
    assert_eq!(broken(change), "plan.called_right");
}

#[test]
fn live_buffers_do_not_overlap_in_any_class() {
    let at = |per_row, fixed| Place::Arena { offset: Affine { per_row, fixed } };
    let change = |plan: &mut Plan| decode(plan).buffers[BufferId(4)].place = at(0, 0);
    assert_eq!(broken(change), "plan.disjoint");
    // Right in the class of one row, wrong in the larger ones.
    let change = |plan: &mut Plan| decode(plan).buffers[BufferId(4)].place = at(0, 256);
    assert_eq!(broken(change), "plan.disjoint");
}

#[test]
fn memory_is_reused_only_after_its_last_reader() {
    // In one launch, `again` may run beside `norm`, which still reads `x`.
    let merge = |plan: &mut Plan, waits: &[u32]| {
        let function = decode(plan);
        function.launches = vec![Launch { rank: 0, steps: [StepId(0), StepId(4)] }];
        function.steps[StepId(3)].waits = waits.iter().copied().map(StepId).collect();
    };
    assert_eq!(broken(|plan| merge(plan, &[0])), "plan.defined");
    assert_eq!(broken(|plan| merge(plan, &[1])), "none");
    assert_eq!(broken(|plan| merge(plan, &[2])), "none");
    let beside = |plan: &mut Plan| {
        merge(plan, &[0]);
        decode(plan).steps[StepId(3)].arguments = [2, 3, 7].map(BufferId).to_vec();
    };
    assert_eq!(broken(beside), "plan.disjoint");
}

#[test]
fn two_writers_of_a_port_are_ordered() {
    let change = |plan: &mut Plan| {
        let function = decode(plan);
        function.launches = vec![Launch { rank: 0, steps: [StepId(0), StepId(4)] }];
        let again = &mut function.steps[StepId(3)];
        again.arguments = [4, 3, 6].map(BufferId).to_vec();
        again.waits = vec![StepId(1)];
    };
    assert_eq!(broken(change), "plan.disjoint");
}

#[test]
fn two_functions_do_not_share_a_name() {
    let change = |plan: &mut Plan| plan.functions.push(plan.functions[0].clone());
    assert_eq!(broken(change), "plan.named");
}

#[test]
fn a_broken_rule_says_where_and_both_sides() {
    let mut plan = small();
    decode(&mut plan).buffers[BufferId(4)].place =
        Place::Arena { offset: Affine { per_row: 0, fixed: 256 } };
    expect![[
        r#"`plan.disjoint` does not hold for `decode`, step 1 `norm`: it writes `h` on top of `x`"#
    ]]
    .assert_eq(&plan.verify().unwrap_err().to_string());
}

#[test]
fn rows_that_choose_their_weights_need_no_more_than_all_of_them() {
    let experts =
        Cost { weight_bytes: 800, row_weight_bytes: 100, row_bytes: 1, ..Cost::default() };
    assert_eq!([0, 2, 100].map(|rows| experts.bytes(rows, 0)), [0, 202, 900]);
    let all = Cost { row_weight_bytes: 0, position_bytes: 10, ..experts };
    assert_eq!([0, 2].map(|rows| all.bytes(rows, 3)), [30, 832]);
}

#[test]
fn a_listing_shows_every_step_at_one_class() {
    let plan = small();
    expect![[r#"
        plan decode   class 4 of [1, 4, 8]   arena 0.00 MB   workspace 0.00 MB per thread   4 steps in 2 launches
         step  label   kernel           items       bytes    operations  waits
            0  embed   embed.d64            2     0.00 MB     0.000 GOP  -
            1  norm    rms_norm.d64         2     0.00 MB     0.000 GOP  0
            2  head    linear               2     0.00 MB     0.000 GOP  1
         step  label   kernel           items       bytes    operations  waits
            3  again   rms_norm.d64         2     0.00 MB     0.000 GOP  -
    "#]].assert_eq(&plan.listing(&plan.functions[0], Some(4)).to_string());
}
