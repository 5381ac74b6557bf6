//! The products for CUDA targets.
//!
//! A weight is rows along K ([`crate::packing::rows`]); a block multiplies a tile of rows of x by rows
//! of the weight and finishes its sums where they are.

pub mod direct;
pub mod few;
pub mod finish;
pub mod input;
pub mod joined;
pub mod kept;
pub mod measure;
pub mod mixed;
pub mod multiply;
pub mod quantize;
pub mod ring;
pub mod sum;
#[cfg(test)]
mod tests;
pub mod tile;
pub mod turn;
pub mod walk;
pub mod warpgroup;
pub mod weight;

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::{GateUpSilu, GateUpSiluProblem, Linear, LinearProblem, Prologue};
use crate::emit::{Block, Builder, F32, I32, Index, Ptr, Value};
use crate::gpu::OnGpu;
use crate::gpu_model::product::ByRule;
use crate::kernel::{Before, Kernel, Rows, ThreadBlock};
use crate::norm::RmsNorm;
use crate::norm::nvptx::rms_norm;
use crate::packing::rows::RUN;
use few::Few;
use finish::{Finish, GroupPart, Outputs, Pointers, Staged};
use input::Input;
use mixed::Mixed;
use quantize::{QuantizeRows, QuantizedRows};
use sum::Sum;
use tile::{Side, Tile};
use warpgroup::Warpgroups;

/// The sizes of a product, whatever it is a part of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    pub rows: Rows,
    /// Outputs.
    pub n: u32,
    pub k: u32,
    pub scheme: Scheme,
    pub prologue: Prologue,
    pub finish: Finish,
    /// Weights that are packed one after the other, what stands behind their rows behind those of all.
    pub weights: u32,
}

impl Sizes {
    /// Rows of the packed weight.
    pub fn weight_rows(&self) -> u32 {
        let sums = self.finish.sums();
        sums * self.n.next_multiple_of(RUN / sums)
    }

    /// Rows of all packed weights.
    pub fn packed_rows(&self) -> u64 {
        u64::from(self.weights) * u64::from(self.weight_rows())
    }

    /// What few rows go through on their way to the product.
    fn input(&self) -> Input {
        Input { k: self.k, scheme: self.scheme, prologue: self.prologue }
    }

    /// Bytes from one of them to the next.
    pub fn pitch(&self) -> u64 {
        self.scheme.row_bytes(self.k.into())
    }
}

/// The pointers of a product.
pub(crate) struct Arguments<'c> {
    pub x: Ptr<'c>,
    /// Weight of the norm before the product.
    pub norm: Option<Ptr<'c>>,
    pub weight: Ptr<'c>,
    pub finish: Pointers<'c>,
}

impl<'c> Arguments<'c> {
    /// By their names.
    fn of(k: &Builder<'c>, names: &[&str]) -> Self {
        let pointer = |name| names.iter().position(|a| *a == name).map(|at| k.argument(at));
        let must = |name| pointer(name).expect("every product has this argument");
        Self {
            x: must("x"),
            norm: pointer("norm"),
            weight: must("weight"),
            finish: Pointers { bias: pointer("bias"), residual: pointer("residual"), y: must("y") },
        }
    }
}

/// `linear` for calls of at most `most_rows` counted rows; `None` where there is no code for its
/// prologue.
#[must_use]
pub fn linear(kernel: &Linear, target: &Target, most_rows: u32) -> Option<Box<dyn Kernel>> {
    let LinearProblem { rows, n, k, scheme, prologue, epilogue } = kernel.problem;
    let sizes = Sizes { rows, n, k, scheme, prologue, finish: Finish::Each(epilogue), weights: 1 };
    product(kernel, sizes, target, most_rows)
}

/// `gate_up_silu`, as [`linear`].
#[must_use]
pub fn gate_up_silu(
    kernel: &GateUpSilu,
    target: &Target,
    most_rows: u32,
) -> Option<Box<dyn Kernel>> {
    let GateUpSiluProblem { rows, n, k, scheme, prologue } = kernel.problem;
    let sizes = Sizes { rows, n, k, scheme, prologue, finish: Finish::Gated, weights: 1 };
    product(kernel, sizes, target, most_rows)
}

fn product<P: Kernel + Clone + Send + 'static>(
    problem: &P,
    sizes: Sizes,
    target: &Target,
    most_rows: u32,
) -> Option<Box<dyn Kernel>> {
    if matches!(sizes.prologue, Prologue::ShuffleLayerNorm { .. }) {
        return None;
    }
    let most_rows = most_rows.saturating_mul(sizes.rows.per);
    let (problem, target) = (problem.clone(), target.clone());
    Some(match ByRule::of(&sizes, most_rows, &target)? {
        ByRule::Rows(way) => Box::new(OnGpu::by(way, move |way, config| {
            few_rows(&problem, sizes, way.few(config)) //
        })),
        ByRule::Warpgroups(way) => Box::new(OnGpu::by(way, move |way, config| {
            by_warpgroups(&problem, sizes, way.shape(config), &target)
        })),
        ByRule::Mixed(way) => Box::new(OnGpu::by(way, move |way, config| {
            of_mixed(&problem, sizes, way.shape(config), &target)
        })),
        ByRule::Tile(way) => Box::new(OnGpu::by(way, move |way, config| {
            tiled(&problem, sizes, way.tile(config)) //
        })),
    })
}

/// A product of few rows.
fn few_rows<P: Kernel + Clone + Send + 'static>(problem: &P, sizes: Sizes, few: Few) -> OnGpu<P> {
    let block = ThreadBlock {
        shared_bytes: few.shared_bytes(&sizes),
        waits_itself: true,
        blocks_per_processor: few.blocks_per_processor,
        ..ThreadBlock::of(few.threads())
    };
    let grid = sizes.rows.grid(few.rows(), few.blocks);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let arguments = Arguments::of(k, kernel.arguments());
        k.let_successor_start();
        k.for_this_block(&kernel.grid(), |k, block| {
            match sizes.scheme {
                Scheme::Int8 => turn::write::<I32<'_>>(k, few, sizes, &arguments, block),
                _ => turn::write::<F32<'_>>(k, few, sizes, &arguments, block),
            };
        });
        // Blocks past the counts, too: who comes after this kernel trusts that all before it has ended.
        k.wait_for_predecessor();
        Ok(())
    });
    kernel.named(format!("rows{}x{}", few.rows(), few.columns()))
}

/// A product of many rows.
fn tiled<P: Kernel + Clone + Send + 'static>(problem: &P, sizes: Sizes, tile: Tile) -> OnGpu<P> {
    let block = ThreadBlock {
        shared_bytes: tile.shared_bytes(sizes.scheme),
        blocks_per_processor: 2,
        ..ThreadBlock::of(tile.threads())
    };
    let grid = sizes.rows.grid(tile.rows, sizes.weight_rows().div_ceil(tile.columns));
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let arguments = Arguments::of(k, kernel.arguments());
        let shared = k.shared(tile.shared_bytes(sizes.scheme).into(), 128);
        k.for_this_block(&kernel.grid(), |k, block| match sizes.scheme {
            Scheme::Int8 => write_tile::<I32<'_>>(k, (tile, shared), sizes, &arguments, block),
            _ => write_tile::<F32<'_>>(k, (tile, shared), sizes, &arguments, block),
        });
        Ok(())
    });
    after_its_rows(kernel.named(format!("tile{}x{}", tile.rows, tile.columns)), sizes)
}

/// A product of many rows on `sm_90` with a weight of fewer bits than its rows.
fn of_mixed<P: Kernel + Clone + Send + 'static>(
    problem: &P,
    sizes: Sizes,
    shape: Mixed,
    target: &Target,
) -> OnGpu<P> {
    let columns = sizes.weight_rows().div_ceil(shape.columns);
    let grid = sizes.rows.grid(shape.rows, columns);
    let block = shape.block(&sizes, weight_of(problem), target);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let arguments = Arguments::of(k, kernel.arguments());
        mixed::write(k, (shape, &sizes, &kernel.grid()), &arguments);
        Ok(())
    });
    after_its_rows(kernel.named(format!("mixed{}x{}", shape.rows, shape.columns)), sizes)
}

/// Which argument of a product is its weight.
pub(crate) fn weight_of(problem: &dyn Kernel) -> u32 {
    let weight = problem.arguments().iter().position(|name| *name == "weight");
    weight.expect("every product has this argument") as u32
}

/// A product of many rows on `sm_90`.
fn by_warpgroups<P: Kernel + Clone + Send + 'static>(
    problem: &P,
    sizes: Sizes,
    shape: Warpgroups,
    target: &Target,
) -> OnGpu<P> {
    let columns = sizes.weight_rows().div_ceil(shape.columns);
    let grid = sizes.rows.grid(warpgroup::ROWS, columns);
    let block = shape.block(&sizes, weight_of(problem), target);
    let kernel = OnGpu::new(problem, grid, block, move |kernel, k| {
        let arguments = Arguments::of(k, kernel.arguments());
        let grid = kernel.grid();
        match sizes.scheme {
            Scheme::Int8 => warpgroup::write::<I32<'_>>(k, (shape, &sizes, &grid), |k, tile| {
                direct::finish(k, tile, &sizes, &arguments);
            }),
            _ => warpgroup::write::<F32<'_>>(k, (shape, &sizes, &grid), |k, tile| {
                direct::finish(k, tile, &sizes, &arguments);
            }),
        }
        Ok(())
    });
    after_its_rows(kernel.named(format!("wgmma{}x{}", warpgroup::ROWS, shape.columns)), sizes)
}

/// `kernel` after what makes its rows, where that is needed.
pub(crate) fn after_its_rows<P: Kernel + Clone>(kernel: OnGpu<P>, sizes: Sizes) -> OnGpu<P> {
    match sizes.before() {
        Some(_) => kernel.after(move || sizes.before().expect("it was asked above")),
        None => kernel,
    }
}

impl Sizes {
    /// What makes the rows of x as a product of many takes them.
    fn before(self) -> Option<Before> {
        let Self { rows, k, scheme, prologue, .. } = self;
        let norm = matches!(prologue, Prologue::RmsNorm { .. });
        let takes = if norm { vec![0, 1] } else { vec![0] };
        if scheme.quantizes_activations() {
            let kernel =
                Box::new(QuantizeRows { rows, k, prologue, scheme: quantize::codes(scheme) });
            return Some(Before { kernel, takes, row_bytes: QuantizedRows { k }.row_bytes() });
        }
        let Prologue::RmsNorm { eps } = prologue else { return None };
        let kernel = Box::new(rms_norm(&RmsNorm { rows, width: k, eps }));
        Some(Before { kernel, takes, row_bytes: 2 * u64::from(k) })
    }

    /// Bytes from one row of x to the next, and of those how many are multiplied.
    pub fn row_bytes(self) -> [u64; 2] {
        if !self.scheme.quantizes_activations() {
            return [2 * u64::from(self.k); 2];
        }
        let rows = QuantizedRows { k: self.k };
        [rows.row_bytes(), rows.code_bytes()]
    }

    /// The rows of the weight at `place` from `first` on; `behind` is what stands behind them.
    pub fn weight<'c>(self, [place, behind]: [Ptr<'c>; 2], first: Index<'c>) -> weight::Rows<'c> {
        let (scheme, inner, rows) = (self.scheme, self.k, self.weight_rows());
        weight::Rows { scheme, k: inner, rows, place, behind, first }
    }

    /// Sums of neighbouring weight rows from `column` on, in what the rows' integers are worth;
    /// `scales` are those of all rows.
    pub fn scaled<'c>(
        &self,
        k: &mut Builder<'c>,
        sums: F32<'c>,
        scales: Ptr<'c>,
        column: Index<'c>,
    ) -> F32<'c> {
        match self.scheme {
            Scheme::Bf16 | Scheme::Int4 => sums,
            Scheme::Int8 | Scheme::Int8Weight | Scheme::Fp8 => {
                let place = k.at::<F32>(scales, column);
                let scale = k.load_whole::<F32>(place, sums.width());
                k.mul(sums, scale)
            }
        }
    }

    /// Sums of a row of x in what its integers are worth.
    pub fn stepped<'c>(
        &self,
        k: &mut Builder<'c>,
        sums: F32<'c>,
        step: impl FnOnce(&mut Builder<'c>) -> F32<'c>,
    ) -> F32<'c> {
        if !self.scheme.quantizes_activations() {
            return sums;
        }
        let step = step(k);
        k.mul(sums, step)
    }
}

/// What stands behind the rows of `weight`.
pub(crate) fn behind<'c>(k: &mut Builder<'c>, sizes: &Sizes, weight: Ptr<'c>) -> Ptr<'c> {
    k.at_bytes_constant(weight, sizes.packed_rows() * sizes.pitch())
}

/// One tile of a product: multiply, stage, finish.
fn write_tile<'c, T: Sum<'c>>(
    k: &mut Builder<'c>,
    (tile, shared): (Tile, Ptr<'c>),
    sizes: Sizes,
    arguments: &Arguments<'c>,
    block: Block<'c>,
) {
    let [row_bytes, multiplied] = sizes.row_bytes();
    let first = k.mul_constant(block.first_column, tile.columns.into());

    k.note("1 multiply");
    let (x, weight) = (arguments.x, arguments.weight);
    let left = move |k: &mut Builder<'c>, row: Index<'c>| {
        let last = k.sub_constant(block.rows, 1);
        let row = k.min(row, last);
        let row = k.add(row, block.first_row);
        let start = k.mul_constant(row, row_bytes);
        k.at_bytes(x, start)
    };
    let right = sizes.weight([weight, behind(k, &sizes, weight)], first);
    let left = Side::new(left, multiplied);
    let sums = tile::multiply::<T>(k, (tile, shared), left, &right);

    k.note("2 stage the sums where the steps were, of which every copy has been waited for");
    k.barrier();
    let staged = Staged { place: shared, columns: tile.columns };
    sums.each_pair(k, |k, at, pair| {
        let pair = pair.map(|sum| sum.as_f32(k));
        staged.put(k, at, pair);
    });
    k.barrier();

    k.note("3 finish");
    let scales = behind(k, &sizes, arguments.weight);
    let load = |k: &mut Builder<'c>, part: GroupPart<'c>| -> F32<'c> {
        let sum = staged.get(k, part);
        let column = part.column(k);
        let column = k.add(column, first);
        let sum = sizes.scaled(k, sum, scales, column);
        sizes.stepped(k, sum, |k| {
            let row = k.add(part.row, block.first_row);
            QuantizedRows { k: sizes.k }.step(k, arguments.x, row)
        })
    };
    let first_output = k.div_constant(first, sizes.finish.sums().into());
    let (rows, first_row) = (block.rows, block.first_row);
    let outputs = Outputs { rows, first_row, first: first_output, n: sizes.n, most: 8 };
    sizes.finish.store(k, tile.columns, outputs, &arguments.finish, load);
}
