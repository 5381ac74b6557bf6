//! Products of rows sorted by expert for CUDA targets: a block has one expert and a tile of its
//! outputs, and takes the expert's rows tile by tile. An expert without rows costs its blocks a look
//! at two numbers.

use sail_ir::scheme::Scheme;

use super::{Grouped, GroupedProblem, GroupedProduct};
use crate::emit::{Builder, F32, I32, Index, Ptr};
use crate::gpu::OnGpu;
use crate::kernel::{Kernel, Rows, ThreadBlock};
use crate::linear::nvptx::finish::{Finish, Outputs, Pointers, Staged};
use crate::linear::nvptx::quantize::QuantizedRows;
use crate::linear::nvptx::tile::{Side, Tile, multiply};
use crate::linear::nvptx::{Sizes, prepared, sum::Sum};
use crate::linear::{Epilogue, Prologue};
use crate::rows::index_at;

/// An expert has few rows: 3072 tokens of 8 of 128 experts give each 192.
const TILE: Tile = Tile { rows: 64, columns: 64, warps: [2, 2] };

/// What a block of a grouped product works with.
#[derive(Clone, Copy)]
struct Group<'c> {
    sizes: Sizes,
    x: Ptr<'c>,
    /// The pair of each sorted row, where rows are gathered, and pairs of a token.
    order: Option<(Ptr<'c>, u32)>,
    /// The weight of the expert.
    weight: Ptr<'c>,
    /// What stands behind its rows: their scales, or the words of their groups.
    scales: Ptr<'c>,
    y: Ptr<'c>,
    /// First weight row of the tile.
    first: Index<'c>,
    shared: Ptr<'c>,
}

/// [`GroupedProduct`] for a GPU.
#[must_use]
pub fn grouped(problem: &GroupedProduct) -> Box<dyn Kernel> {
    let GroupedProblem { what, rows, experts, n, k, scheme, .. } = problem.problem;
    let finish = match what {
        Grouped::GateUpSilu => Finish::Gated,
        Grouped::Linear => Finish::Each(Epilogue::NONE),
    };
    let sizes = Sizes { rows, n, k, scheme, prologue: Prologue::Direct, finish, weights: 1 };
    let tiles = sizes.weight_rows().div_ceil(TILE.columns);
    let block = ThreadBlock::of(TILE.threads()).with_shared(TILE.shared_bytes(scheme));
    let grid = rows.grid(u32::MAX, experts * tiles);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let shared = k.shared(TILE.shared_bytes(scheme).into(), 128);
        let names = kernel.arguments();
        let pointer = |name| names.iter().position(|a| *a == name).map(|at| k.argument(at));
        let must = |name| pointer(name).expect("every grouped product has this argument");
        let [x, starts, weight, y] = ["x", "starts", "weight", "y"].map(must);
        let order = pointer("order").map(|order| (order, rows.per));
        let stored = pointer("stored");
        k.for_this_block(&kernel.grid(), |k, block| {
            let item = block.first_column;
            let [place, tile] =
                [k.div_constant(item, tiles.into()), k.rem_constant(item, tiles.into())];
            // Which expert's weights stand there.
            let expert = stored.map_or(place, |stored| index_at(k, stored, place));
            let next = k.add_constant(expert, 1);
            let [begin, end] = [expert, next].map(|expert| index_at(k, starts, expert));
            let bytes = u64::from(sizes.weight_rows()) * sizes.pitch();
            // Scales and words of groups stand behind the rows of all experts, in the order of these.
            let scales = k.at_bytes_constant(weight, u64::from(experts) * bytes);
            let behind_bytes = u64::from(sizes.weight_rows()) * scheme.bytes_behind(sizes.k.into());
            let of_expert = k.mul_constant(place, behind_bytes);
            let scales = k.at_bytes(scales, of_expert);
            let offset = k.mul_constant(place, bytes);
            let weight = k.at_bytes(weight, offset);
            let first = k.mul_constant(tile, TILE.columns.into());
            let group = Group { sizes, x, order, weight, scales, y, first, shared };
            k.for_each(begin, end, TILE.rows.into(), |k, at| match scheme {
                Scheme::Int8 => group.tile::<I32<'_>>(k, at, end),
                _ => group.tile::<F32<'_>>(k, at, end),
            });
        });
        Ok(())
    });
    // Rows that are gathered are those of the tokens; sorted ones are as many as there are pairs.
    let rows = if what == Grouped::GateUpSilu { Rows { per: 1, ..rows } } else { rows };
    let sizes = Sizes { rows, ..sizes };
    prepared(kernel, sizes)
}

impl<'c> Group<'c> {
    /// Sorted rows from `at` on, at most a tile of them and none from `end` on.
    fn tile<T: Sum<'c>>(self, k: &mut Builder<'c>, at: Index<'c>, end: Index<'c>) {
        let sizes = self.sizes;
        let left = k.sub(end, at);
        let most = k.index(TILE.rows.into());
        let rows = k.min(left, most);
        let [row_bytes, multiplied] = sizes.row_bytes();

        k.note("1 multiply");
        let left = move |k: &mut Builder<'c>, row: Index<'c>| {
            let last = k.sub_constant(rows, 1);
            let row = k.min(row, last);
            let row = k.add(row, at);
            let row = self.row_of_x(k, row);
            let start = k.mul_constant(row, row_bytes);
            k.at_bytes(self.x, start)
        };
        let right = sizes.weight([self.weight, self.scales], self.first);
        let sums = multiply::<T>(k, (TILE, self.shared), Side::new(left, multiplied), &right);

        k.note("2 stage the sums where the steps were, of which every copy has been waited for");
        k.barrier();
        let staged = Staged { place: self.shared, columns: TILE.columns };
        sums.each_pair(k, |k, at, pair| {
            let pair = pair.map(|sum| sum.as_f32(k));
            staged.put(k, at, pair);
        });
        k.barrier();

        k.note("3 finish");
        let first = k.div_constant(self.first, sizes.finish.sums().into());
        let outputs = Outputs { rows, first_row: at, first, n: sizes.n, most: 8 };
        let pointers = Pointers { bias: None, residual: None, y: self.y };
        sizes.finish.store(k, TILE.columns, outputs, &pointers, |k, part| {
            let sum = staged.get(k, part);
            let column = part.column(k);
            let column = k.add(column, self.first);
            let sum = sizes.scaled(k, sum, self.scales, column);
            sizes.stepped(k, sum, |k| {
                let row = k.add(part.row, at);
                let row = self.row_of_x(k, row);
                QuantizedRows { k: sizes.k }.step(k, self.x, row)
            })
        });
        // The next rows' steps go where the sums are.
        k.barrier();
    }

    /// The row of x that is sorted row `row`.
    fn row_of_x(self, k: &mut Builder<'c>, row: Index<'c>) -> Index<'c> {
        let Some((order, top_k)) = self.order else { return row };
        let pair = index_at(k, order, row);
        k.div_constant(pair, top_k.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::gpu::simulate::Simulated;
    use crate::emit::run::{Counts, bf16_bytes, bf16_values, i32_bytes, poisoned, random};
    use crate::kernel::Before;
    use crate::packing::{Join, rows};
    use crate::reference::{self, Rounding};
    use crate::table::template;
    use sail_ir::plan::Count;
    use sail_ir::target::Target;

    fn drawn(seed: u64, count: usize, scale: f32) -> (Vec<u8>, Vec<f64>) {
        let bytes = bf16_bytes(&random(seed, count).iter().map(|v| v * scale).collect::<Vec<_>>());
        let values = bf16_values(&bytes).into_iter().map(f64::from).collect();
        (bytes, values)
    }

    /// Experts of each token: some have none, one has many.
    fn chosen(tokens: usize, experts: i32, top_k: usize) -> Vec<i32> {
        let choice = |pair: usize| {
            let (token, choice) = (pair / top_k, pair % top_k);
            if choice == 0 { 1 } else { ((token * 5 + 2 * choice) as i32 % (experts - 2)) + 2 }
        };
        (0..tokens * top_k).map(choice).collect()
    }

    fn check((what, scheme): (Grouped, Scheme), [n, k]: [usize; 2], tokens: usize) {
        let (experts, top_k) = (5, 2);
        let ids = chosen(tokens, experts, top_k);
        let groups = reference::group_by_expert(&ids, experts as usize);
        let rows = Rows { count: Count::Tokens, per: top_k as u32 };
        let problem = GroupedProblem {
            what,
            rows,
            experts: experts as u32,
            n: n as u32,
            k: k as u32,
            scheme,
            placed: false,
        };
        // The shape for x86-64 does not matter here.
        let kernel = GroupedProduct::new(problem, &Target::parse("x86-64-v3").unwrap());
        let kernel = grouped(&kernel);
        let pairs = tokens * top_k;
        let weight = |seed| -> Vec<(Vec<u8>, Vec<f64>)> {
            let part = |expert| drawn(seed + expert, n * k, 1.0 / (k as f32).sqrt());
            (0..experts as u64).map(part).collect()
        };
        let (starts, order) = (i32_bytes(&groups.starts), i32_bytes(&groups.order));
        // What the packed weight of some parts stands for, part after part.
        let all = |join, packed: &[u8], parts: usize| -> Vec<Vec<f64>> {
            rows::unpack_whole(scheme, join, (packed, &vec![n as u64; parts]), k)
        };
        let taken = |x: Vec<f64>| match scheme {
            Scheme::Fp8 => reference::float8_rows(&x, k),
            scheme if scheme.quantizes_activations() => reference::quantized_rows(&x, k),
            _ => x,
        };
        let path = |part: &(Vec<u8>, Vec<f64>)| (part.0.clone(), n as u64);
        let (mut buffers, want) = match what {
            Grouped::GateUpSilu => {
                let (x, values) = drawn(1, tokens * k, 1.0);
                let (gate, up) = (weight(100), weight(200));
                let paths: Vec<_> = gate.iter().chain(&up).map(path).collect();
                let paths: Vec<_> = paths.iter().map(|(bytes, n)| (&bytes[..], *n)).collect();
                let packed = rows::pack_whole(scheme, Join::StackInterleave, &paths, k);
                let values_of = all(Join::StackInterleave, &packed, 2 * experts as usize);
                let (gate, up) = values_of.split_at(experts as usize);
                let (gate, up) = (gate.concat(), up.concat());
                let want = reference::grouped_gate_up_silu(
                    &taken(values),
                    &groups,
                    [&gate, &up],
                    k,
                    Rounding::Bf16,
                );
                (vec![x, order, starts, packed, poisoned(2 * pairs * n)], want)
            }
            Grouped::Linear => {
                let (x, values) = drawn(1, pairs * k, 1.0);
                let down = weight(300);
                let paths: Vec<_> = down.iter().map(path).collect();
                let paths: Vec<_> = paths.iter().map(|(bytes, n)| (&bytes[..], *n)).collect();
                let packed = rows::pack_whole(scheme, Join::Stack, &paths, k);
                let down = all(Join::Stack, &packed, experts as usize).concat();
                let want = reference::grouped_linear(
                    &taken(values),
                    &groups.starts,
                    &down,
                    k,
                    Rounding::Bf16,
                );
                (vec![x, starts, packed, poisoned(2 * pairs * n)], want)
            }
        };
        let counts = Counts { tokens: tokens as u32, ..Counts::default() };
        let target = Target::parse(if scheme == Scheme::Fp8 { "sm_90" } else { "sm_80" }).unwrap();
        if let Some(Before { kernel, takes, row_bytes }) = kernel.before() {
            let made = kernel.grid().rows(tokens as u32) * row_bytes;
            let mut given: Vec<_> = takes.iter().map(|at| buffers[*at as usize].clone()).collect();
            given.push(vec![0xff; made as usize]);
            let made = Simulated::new(kernel.as_ref(), &target).run(counts, &given);
            buffers[0] = made.last().unwrap().clone();
        }
        let after = Simulated::new(kernel.as_ref(), &target).run(counts, &buffers);
        let tolerance = template(kernel.family()).unwrap().tolerance;
        let got = bf16_values(after.last().unwrap());
        assert_eq!(
            tolerance.first_beyond(&got, &want),
            None,
            "{what:?} {n} x {k}, {tokens} tokens"
        );
    }

    #[test]
    fn rows_meet_the_weight_of_their_expert() {
        for what in [Grouped::GateUpSilu, Grouped::Linear] {
            for (sizes, tokens) in [([7, 5], 1), ([48, 64], 3), ([33, 70], 40), ([96, 128], 90)] {
                for scheme in Scheme::ALL {
                    check((what, scheme), sizes, tokens);
                }
            }
        }
    }
}
