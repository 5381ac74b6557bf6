//! The words of a GPU as PTX of both targets, and ptxas over it where it is found.

use sail_ir::plan::{Cost, Grid, MapRows, TensorMap};
use sail_ir::target::Target;

use super::{Cache, Left, Matrices, Swizzle, Team};
use crate::emit::{Bf16, Builder, F32, I32};
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::ptx::ptx;
use crate::ptxas::tests::{MOST_REGISTERS, judge};

/// A kernel written in place.
struct Snippet<F> {
    block: ThreadBlock,
    write: F,
}

impl<F: Fn(&mut Builder<'_>) + Sync> Kernel for Snippet<F> {
    fn family(&self) -> &'static str {
        "snippet"
    }

    fn symbol(&self) -> String {
        "snippet.of-words".to_owned()
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[1]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(4, 3)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        Cost::default()
    }

    fn thread_block(&self) -> Option<ThreadBlock> {
        Some(self.block.clone())
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        (self.write)(k);
        Ok(())
    }
}

/// The PTX of `write`, which must hold each of `wanted` and be accepted by ptxas without a warning.
fn check(
    target: &str,
    block: ThreadBlock,
    wanted: &[&str],
    write: impl Fn(&mut Builder<'_>) + Sync,
) -> String {
    let target = Target::parse(target).unwrap();
    let text = ptx(&[&Snippet { block, write }], &target, 1).unwrap_or_else(|e| panic!("{e}")).text;
    for word in wanted {
        assert!(text.contains(word), "no `{word}` for {target} in\n{text}");
    }
    if let Some(usage) = judge(&text, &target, MOST_REGISTERS) {
        assert_eq!(usage[0].entry, "snippet_of_words");
    }
    text
}

const BOTH: [&str; 2] = ["sm_80", "sm_90"];

#[test]
fn an_entry_takes_pointers_and_control_and_leaves_past_the_counts() {
    let wanted = [
        ".visible .entry snippet_of_words(",
        ".param .u64 .ptr .global .align 1 snippet_of_words_param_2",
        ".reqntid 128",
        ".minnctapersm 4",
        "%ctaid.x",
    ];
    for target in BOTH {
        let block = ThreadBlock { blocks_per_processor: 4, ..ThreadBlock::of(128) };
        check(target, block, &wanted, |k| {
            let [x, y] = k.arguments::<2>();
            k.for_this_block(&Rows::TOKENS.grid(4, 3), |k, block| {
                let thread = k.thread();
                let within = k.less(thread, block.rows);
                k.when(within, |k| {
                    let row = k.add(block.first_row, thread);
                    let [from, to] = [x, y].map(|base| k.at::<F32>(base, row));
                    let value = k.load::<F32>(from, 1);
                    k.store(to, value);
                });
            });
        });
    }
}

#[test]
fn what_is_written_is_not_contracted_and_vectors_are_whole() {
    for target in BOTH {
        let wanted = ["ld.global.v4.b32", "st.global.v4.b32", "mul.rn.f32", "add.rn.f32"];
        let text = check(target, ThreadBlock::of(32), &wanted, |k| {
            let [x, y] = k.arguments::<2>();
            k.share_pieces(Team::Block, 4096, |k, piece| {
                let value = k.read_widened(x, piece);
                let square = k.mul(value, value);
                let sum = k.add(square, value);
                k.write_rounded(y, piece, sum);
            });
        });
        assert!(text.contains("cvt.rn.bf16x2.f32"), "{text}");
        assert!(!text.contains("fma"), "{text}");
    }
}

#[test]
fn numbers_of_two_words_are_multiplied_and_summed() {
    for target in BOTH {
        check(target, ThreadBlock::of(32), &["mul.hi.u64", "shfl.sync.up.b32"], |k| {
            let [x, y] = k.arguments::<2>();
            let thread = k.thread();
            let from = k.at::<I32>(x, thread);
            let word = k.load::<I32>(from, 1);
            let number = k.of_halves([word, word]);
            let [before, with] = k.sums_along_warp(number);
            let sum = k.wide_sum_of_warp(with);
            let high = k.high_of_product(before, sum);
            let [low, high] = k.halves(high);
            let word = k.xor(low, high);
            let to = k.at::<I32>(y, thread);
            k.store(to, word);
        });
    }
}

#[test]
fn threads_pass_values_and_join_them() {
    let wanted =
        ["shfl.sync.bfly.b32", "shfl.sync.up.b32", "bar.sync", "vote.sync.ballot.b32", "popc.b32"];
    for target in BOTH {
        let block = ThreadBlock::of(256).with_shared(3 * Builder::join_block_bytes(256));
        check(target, block, &wanted, |k| {
            let [x, y] = k.arguments::<2>();
            let thread = k.thread();
            let from = k.at::<F32>(x, thread);
            let value = k.load::<F32>(from, 1);
            let (sum, most) = (k.sum_of_block(value), k.max_of_block(value));
            let zero = k.f32(0.0);
            let positive = k.less(zero, value);
            let votes = k.ballot(positive);
            let before = k.lanes_before();
            let votes = k.and(votes, before);
            let count = k.ones(votes);
            let earlier = k.from_lane_before(count, 1);
            let all = k.sum_of_block(earlier);
            k.warp_barrier();
            let share = k.div(most, sum);
            let all = k.f32_of(all);
            let share = k.mul(share, all);
            let to = k.at::<F32>(y, thread);
            k.store(to, share);
        });
    }
}

#[test]
fn named_barriers_and_counters() {
    let wanted = ["bar.sync", "bar.arrive", "red.release.gpu", "ld.acquire.gpu", "atom"];
    for target in BOTH {
        check(target, ThreadBlock::of(64), &wanted, |k| {
            let [x, y] = k.arguments::<2>();
            let warp = k.warp();
            let zero = k.index(0);
            let first = k.equal(warp, zero);
            k.choose(first, |k| k.arrive_at_barrier(1, 64), |k| k.barrier_of(1, 64));
            let one = k.i32(1);
            k.signal(x, one);
            let seen = k.load_signalled(x);
            let old = k.add_atomically(y, seen);
            let old = k.f32_of(old);
            k.add_float_atomically(y, old);
        });
    }
}

#[test]
fn words_of_the_caches_and_the_special_function_unit() {
    let wanted = [
        "ld.global.nc.L1::no_allocate.L2::256B.v4.b32",
        "ld.global.cg.v2.b32",
        "prefetch.global.L2",
        "ex2.approx.ftz.f32",
        "rcp.approx.ftz.f32",
        "rsqrt.approx.ftz.f32",
        "cvt.rni.sat.s8.f32",
    ];
    for target in BOTH {
        check(target, ThreadBlock::of(32), &wanted, |k| {
            let [x, y] = k.arguments::<2>();
            k.prefetch_l2(x);
            let words = k.load_words(x, 4, Cache::Once);
            let more = k.load_words(x, 2, Cache::Shared);
            let (a, b) = (k.low_of_pairs(words), k.high_of_pairs(words));
            let sum = k.add(a, b);
            let sum = k.silu_approx(sum);
            let sum = k.sum_lanes(sum);
            let sum = k.rsqrt_approx(sum);
            let byte = k.round_to_byte(sum);
            let [low, high] = [0, 1].map(|at| k.lane(more, at));
            let byte = k.add(byte, low);
            let byte = k.add(byte, high);
            k.store(y, byte);
        });
    }
}

#[test]
fn exact_functions_need_no_library() {
    for target in BOTH {
        let text = check(target, ThreadBlock::of(32), &["div.rn.f32", "sqrt.rn.f32"], |k| {
            let [x, y] = k.arguments::<2>();
            let value = k.load_whole::<F32>(x, 4);
            let value = k.gelu(value);
            let value = k.silu(value);
            let value = k.rsqrt(value);
            k.store_whole(y, value);
        });
        assert!(!text.contains("call"), "{text}");
    }
}

#[test]
fn matrices_of_a_warp_and_copies_that_are_not_waited_for() {
    let wanted = [
        "cp.async.cg.shared.global",
        "cp.async.ca.shared.global",
        "cp.async.commit_group",
        "cp.async.wait_group",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32",
        "dp4a.s32.s32",
        "prmt.b32",
    ];
    for target in BOTH {
        check(target, ThreadBlock::of(32).with_shared(2048), &wanted, |k| {
            let [x, y] = k.arguments::<2>();
            let tile = k.shared(2048, 1024);
            let lane = k.lane_id();
            let offset = k.mul_constant(lane, 16);
            let place = k.at_swizzled(tile, offset);
            let from = k.at_bytes(x, offset);
            let some = k.i32(9);
            k.copy_async(place, from);
            k.copy_async_partial(place, from, some);
            k.copy_async_small(place, from, 4);
            k.commit_copies();
            k.wait_for_copies(0);
            k.barrier();
            let a = k.load_matrices(place, Matrices::Four, false);
            let b = k.load_matrices(place, Matrices::Two, true);
            let (a, b) = ([a[0], a[1], a[2], a[3]], [b[0], b[1]]);
            let sums = k.matrix_bf16([k.f32(0.0); 4], a, b);
            let whole = k.matrix_int8([k.i32(0); 4], a, b);
            let dot = k.dot_signed_bytes(whole[0], whole[1], whole[2]);
            let picked = k.pick_bytes(dot, whole[3], 0x5140);
            let pair = k.round_pair(sums[0], sums[3]);
            let both = k.add(pair, picked);
            k.store(y, both);
        });
    }
}

/// Rows of 64 bf16 as a map with the widest swizzle.
fn map(argument: u32) -> TensorMap {
    TensorMap {
        argument,
        element_bytes: 2,
        columns: 2048,
        rows: MapRows::Fixed(4096),
        row_bytes: 4096,
        block: [64, 64],
        swizzle: 128,
    }
}

#[test]
fn boxes_complete_barriers_and_warpgroups_multiply_them() {
    let wanted = [
        "mbarrier.init.shared::cta.b64",
        "fence.mbarrier_init",
        "elect.sync",
        "mbarrier.arrive.expect_tx",
        "mbarrier.try_wait.parity",
        "cp.async.bulk.tensor.2d.shared::cluster.global",
        "cp.async.bulk.tensor.2d.global.shared::cta",
        "cp.async.bulk.wait_group.read 0",
        "wgmma.fence.sync.aligned",
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
        "wgmma.commit_group.sync.aligned",
        "wgmma.wait_group.sync.aligned 0",
        "setmaxnreg.inc.sync.aligned.u32 240",
        "setmaxnreg.dec.sync.aligned.u32 24",
        "griddepcontrol.wait",
        "griddepcontrol.launch_dependents",
        ".param .align 64 .b8 snippet_of_words_param_3[128]",
    ];
    let block = ThreadBlock {
        registers: 128,
        tensor_maps: vec![map(0), map(1)],
        ..ThreadBlock::of(256).with_shared(3 * 8192 + 16)
    };
    check("sm_90", block, &wanted, |k| {
        let [left, right, out] = [0, 1, 2].map(|_| k.shared(8192, 1024));
        let [full, _empty] = [0, 1].map(|_| k.shared(8, 8));
        let maps = [k.tensor_map(0), k.tensor_map(1)];
        let thread = k.thread();
        let zero = k.index(0);
        let first = k.equal(thread, zero);
        k.when(first, |k| {
            k.init_barrier(full, 1);
            k.fence_barriers();
        });
        k.barrier();
        k.let_successor_start();
        k.wait_for_predecessor();
        let half = k.index(128);
        let produces = k.less(thread, half);
        k.choose(
            produces,
            |k| {
                k.give_registers(24);
                let warp = k.warp();
                let zero = k.index(0);
                let first = k.equal(warp, zero);
                k.when(first, |k| {
                    let one = k.elected();
                    k.when(one, |k| {
                        k.prefetch_map(maps[0]);
                        k.arrive_expecting(full, 2 * 8192);
                        let start = [k.i32(0); 2];
                        k.copy_box_in(left, maps[0], start, full);
                        k.copy_box_in(right, maps[0], start, full);
                    });
                });
            },
            |k| {
                k.take_registers(240);
                let parity = k.i32(0);
                k.wait_for_phase(full, parity);
                let [a, b] =
                    [left, right].map(|place| k.descriptor(place, 1024, Swizzle::Bytes128));
                let mut sums = vec![k.f32(0.0); 32];
                k.begin_products();
                for step in 0..4 {
                    let [a, b] = [a, b].map(|d| k.add_constant(d, 2 * step));
                    sums = k.product_bf16(&sums, Left::Shared(a), b, step == 0);
                }
                k.commit_products();
                let sums = k.wait_for_products(0, &sums);
                let thread = k.thread();
                let place = k.mul_constant(thread, 64);
                let place = k.sub_constant(place, 128 * 64);
                let place = k.at_bytes(out, place);
                for (at, four) in sums.chunks(2).enumerate() {
                    let pair = k.round_pair(four[0], four[1]);
                    let place = k.at_bytes_constant(place, 4 * at as u64);
                    k.store(place, pair);
                }
                k.fence_async();
                k.barrier_of(1, 128);
                let one = k.elected();
                k.when(one, |k| {
                    let start = [k.i32(0); 2];
                    k.copy_box_out(maps[1], start, out);
                    k.commit_boxes();
                    k.wait_for_boxes_read(0);
                });
            },
        );
    });
}

#[test]
fn products_of_bytes_and_of_registers_runs_and_clusters() {
    let wanted = [
        "wgmma.mma_async.sync.aligned.m64n16k32.s32.s8.s8",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16",
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
        "p, 1, 1, 1; }",
        "ld.shared::cluster.v4.f32",
        "max.f32",
        "cp.async.bulk.shared::cluster.global.mbarrier",
        "cp.async.bulk.prefetch.L2.global",
        "stmatrix.sync.aligned.m8n8.x4.shared.b16",
        "barrier.cluster.arrive.release.aligned",
        "%cluster_ctarank",
        "multicast::cluster",
        "mapa.shared::cluster.u32",
        ".reqnctapercluster 2",
    ];
    let block = ThreadBlock {
        cluster: 2,
        tensor_maps: vec![map(0)],
        ..ThreadBlock::of(128).with_shared(8192 + 8)
    };
    check("sm_90", block, &wanted, |k| {
        let [x, y] = k.arguments::<2>();
        let tile = k.shared(8192, 1024);
        let barrier = k.shared(8, 8);
        let rank = k.cluster_rank();
        let rank = k.i32_of(rank);
        let one = k.elected();
        let map = k.tensor_map(0);
        k.when(one, |k| {
            k.init_barrier(barrier, 1);
            let bytes = k.i32(4096);
            k.prefetch_run(x, bytes);
            k.copy_run_in(tile, x, bytes, barrier);
            k.copy_box_to_cluster(tile, map, [k.i32(0); 2], barrier, 3);
        });
        k.cluster_barrier();
        k.arrive_in_cluster(barrier, rank);
        k.arrive(barrier);
        let descriptor = k.descriptor(tile, 1024, Swizzle::Bytes128);
        k.begin_products();
        let whole = vec![k.i32(0); 8];
        let whole = k.product_int8(&whole, Left::Shared(descriptor), descriptor, true);
        k.commit_products();
        let whole = k.wait_for_products(0, &whole);
        k.begin_products();
        let sums = vec![k.f32(0.0); 4];
        let left = Left::Registers([rank; 4]);
        let sums = k.product_bf16(&sums, left, descriptor, false);
        k.commit_products();
        let sums = k.wait_for_products(0, &sums);
        let turned = k.turned_descriptor(tile, 8192);
        let (wide, left) = k.begin_products_with(&[k.f32(0.0); 32], &[[rank; 4]]);
        let wide = k.add_turned_bf16(&wide, Left::Registers(left[0]), turned);
        k.commit_products();
        let wide = k.wait_for_products_of(0, &wide, &left);
        let number = k.i32(2);
        k.arrive_at_numbered(number, 256);
        k.barrier_numbered(number, 256);
        let far = k.load_in_cluster(tile, rank);
        let far = k.lane(far, 3);
        let greatest = k.greater(wide[31], far);
        let least = k.add(sums[1], greatest);
        let pair = k.round_pair(sums[0], least);
        let lane = k.lane_id();
        let row = k.mul_constant(lane, 16);
        let row = k.at_bytes(tile, row);
        k.store_matrices(row, &[whole[0], whole[1], whole[2], pair], false);
        k.barrier();
        let value = k.load_whole::<Bf16>(row, 8);
        let to = k.at::<I32>(y, lane);
        let value = k.as_pairs(value);
        let value = k.sum_lanes(value);
        k.store(to, value);
    });
}
