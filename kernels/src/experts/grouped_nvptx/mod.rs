//! Products of rows sorted by expert for CUDA targets.
//!
//! With few rows of an expert, reading its weight is all there is ([`few`]). With many, a block
//! multiplies a tile: by warpgroups where the target has them and the weight's bytes are multiplied as
//! they are ([`warpgroup`]), else by warps ([`tile`]).

mod few;
mod groups;
#[cfg(test)]
mod tests;
mod tile;
mod warpgroup;

use sail_ir::target::Target;

use super::{Grouped, GroupedProblem, GroupedProduct};
use crate::emit::{Builder, Ptr};
use crate::gpu_model::{ByWarpgroups, FewRows};
use crate::kernel::{Kernel, Rows};
use crate::linear::nvptx::few::Order;
use crate::linear::nvptx::finish::{Finish, Pointers};
use crate::linear::nvptx::warpgroup::ROWS;
use crate::linear::nvptx::{Arguments, Sizes};
use crate::linear::{Epilogue, Prologue};
use groups::Cut;

/// Tokens of a call of which an expert has no more rows than one matrix instruction takes: a token goes
/// through an expert once.
const FEW_TOKENS: u32 = 8;

/// Rows that an expert has on average, at most, where rows count as few.
const FEW_ROWS: u32 = 8;

/// Rows of an expert that are multiplied together then: of experts with so many on average, few have
/// more.
const FEW_AT_ONCE: u32 = 16;

/// [`GroupedProduct`] for calls of at most `most_tokens` counted rows on the CUDA `target`.
#[must_use]
pub fn grouped(
    problem: &GroupedProduct,
    target: &Target,
    most_tokens: u32,
) -> Option<Box<dyn Kernel>> {
    let GroupedProblem { rows, experts, .. } = problem.problem;
    let sizes = sizes(&problem.problem);
    let pairs = u64::from(most_tokens) * u64::from(rows.per);
    // Rows of an expert, and how many experts a call has at least, as a rule.
    let few = if most_tokens <= FEW_TOKENS {
        Some([FEW_TOKENS, rows.per.min(experts)])
    } else {
        let few = pairs <= u64::from(FEW_ROWS) * u64::from(experts);
        few.then_some([FEW_AT_ONCE, experts])
    };
    if let Some(few) = few {
        let few = FewRows::of_weights(&sizes, few, target)?;
        return Some(few::kernel(problem, sizes, few, target));
    }
    let cut = Cut { experts, rows: ROWS };
    Some(match ByWarpgroups::of_many(&sizes, cut.shared_bytes(), target) {
        Some(shape) => warpgroup::kernel(problem, sizes, (shape, cut), target),
        None => tile::kernel(problem, sizes),
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
