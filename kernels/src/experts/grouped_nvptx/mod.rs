//! Products of rows sorted by expert for CUDA targets.
//!
//! With few rows of an expert, reading its weight is all there is ([`few`]). With many, a block
//! multiplies a tile: by warpgroups where the target has them, the weight's bytes as they are
//! ([`warpgroup`]) or unpacked in registers ([`mixed`]), else by warps ([`tile`]).

#[cfg(test)]
mod edge_tests;
mod few;
mod groups;
mod items;
mod mixed;
#[cfg(test)]
mod tests;
mod tile;
mod warpgroup;

use sail_ir::target::Target;

use super::{Grouped, GroupedProblem, GroupedProduct};
use crate::emit::{Builder, Ptr};
use crate::gpu::OnGpu;
use crate::gpu_model::experts::ExpertsByRule;
use crate::kernel::{Kernel, Rows};
use crate::linear::nvptx::few::Order;
use crate::linear::nvptx::finish::{Finish, Pointers};
use crate::linear::nvptx::warpgroup::ROWS;
use crate::linear::nvptx::{Arguments, Sizes};
use crate::linear::{Epilogue, Prologue};
use groups::{Cut, table_bytes};

/// [`GroupedProduct`] for calls of at most `most_tokens` counted rows on the CUDA `target`.
#[must_use]
pub fn grouped(
    problem: &GroupedProduct,
    target: &Target,
    most_tokens: u32,
) -> Option<Box<dyn Kernel>> {
    let sizes = sizes(&problem.problem);
    let experts = sizes.weights;
    let way = ExpertsByRule::of(&sizes, most_tokens, table_bytes(experts), target)?;
    let (problem, target) = (*problem, target.clone());
    Some(match way {
        ExpertsByRule::Rows(way) => Box::new(OnGpu::by(way, move |way, config| {
            few::kernel(&problem, sizes, way.few(config), &target)
        })),
        ExpertsByRule::Warpgroups(way) => Box::new(OnGpu::by(way, move |way, config| {
            let cut = Cut { experts, rows: ROWS };
            warpgroup::kernel(&problem, sizes, (way.shape(config), cut), &target)
        })),
        ExpertsByRule::Mixed(way) => Box::new(OnGpu::by(way, move |way, config| {
            let shape = way.shape(config);
            let cut = Cut { experts, rows: shape.rows };
            mixed::kernel(&problem, sizes, (shape, cut), &target)
        })),
        ExpertsByRule::Tile(way) => Box::new(OnGpu::by(way, move |way, config| {
            tile::kernel(&problem, sizes, way.tile(config)) //
        })),
    })
}

fn sizes(problem: &GroupedProblem) -> Sizes {
    let GroupedProblem { what, rows, experts, n, k, scheme, .. } = *problem;
    let finish = match what {
        Grouped::GateUpSilu => Finish::Gated,
        Grouped::Linear => Finish::Each(Epilogue::NONE),
    };
    Sizes { rows, n, k, scheme, prologue: Prologue::Direct, finish, weights: experts }
}

/// The sizes of the rows of x: those that are gathered are the tokens', sorted ones are as many as
/// there are pairs.
fn of_x(problem: &GroupedProblem, sizes: Sizes) -> Sizes {
    match problem.what {
        Grouped::GateUpSilu => Sizes { rows: Rows { per: 1, ..sizes.rows }, ..sizes },
        Grouped::Linear => sizes,
    }
}

/// The pointers of a grouped product.
struct Given<'c> {
    /// Those of any product.
    arguments: Arguments<'c>,
    /// The row of x of each sorted row, where rows are gathered.
    order: Option<Order<'c>>,
    starts: Ptr<'c>,
    /// The expert whose weight stands at each place, where that is not its own number.
    stored: Option<Ptr<'c>>,
}

impl<'c> Given<'c> {
    fn of(k: &Builder<'c>, problem: &GroupedProduct) -> Self {
        let names = problem.arguments();
        let pointer = |name| names.iter().position(|a| *a == name).map(|at| k.argument(at));
        let must = |name| pointer(name).expect("every grouped product has this argument");
        let [x, starts, weight, y] = ["x", "starts", "weight", "y"].map(must);
        let finish = Pointers { bias: None, residual: None, y };
        let arguments = Arguments { x, norm: None, weight, finish };
        let per = problem.problem.rows.per;
        let order = pointer("order").map(|pairs| Order { pairs, per });
        Self { arguments, order, starts, stored: pointer("stored") }
    }
}
