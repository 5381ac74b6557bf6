//! `route`: the best experts of every token, and their weights.

use sail_ir::plan::{Cost, Grid};

use crate::emit::{Bf16, Builder, F32, I32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

/// Rows of one work item.
const ROWS_PER_BLOCK: u32 = 4;

/// No target has more f32 in a vector; workspaces are sized for it.
pub(super) const MOST_LANES: u64 = 16;

/// `logits [t, experts]` to `ids [t, top_k]`, best first, of equal logits the lower expert first,
/// and `weights [t, top_k]`: their share of the softmax over all experts, or of that over the
/// chosen ones when `renormalize`. All in f32, the weights rounded once.
///
/// Every id is below `experts`, even where the logits are not numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    pub experts: u32,
    pub top_k: u32,
    pub renormalize: bool,
}

impl Kernel for Route {
    fn family(&self) -> &'static str {
        "route"
    }

    fn symbol(&self) -> String {
        let share = if self.renormalize { "of_chosen" } else { "of_all" };
        format!("route.x{}.k{}.{share}", self.experts, self.top_k)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["logits", "ids", "weights"]
    }

    fn writes(&self) -> &'static [u32] {
        &[1, 2]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        self.logits_bytes() + self.chosen_bytes()
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::route(self)))
    }

    fn cost(&self) -> Cost {
        let (experts, top_k) = (u64::from(self.experts), u64::from(self.top_k));
        Cost {
            row_bytes: 2 * experts + 6 * top_k,
            row_operations: experts * (top_k + 1),
            ..Cost::default()
        }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        self.check(self)?;
        let [logits, ids, weights] = k.arguments::<3>();
        let scratch = [k.carve(self.logits_bytes()), k.carve(self.chosen_bytes())];
        k.for_each_row(&self.grid(), |k, row| {
            let from = row_at(k, logits, row, self.experts);
            let worst = k.f32s(f32::NEG_INFINITY, k.lanes());
            k.for_each_piece(u64::from(self.experts), |k, piece| {
                let values = k.read_widened(from, piece);
                let values = k.within(piece, values, worst);
                let to = k.at::<F32>(scratch[0], piece.at);
                k.store(to, values);
            });
            self.choose(k, scratch, [ids, weights], row);
        });
        Ok(())
    }
}

impl Route {
    /// Refuses more choices than experts, in the name of `kernel`.
    pub(super) fn check(&self, kernel: &dyn Kernel) -> Result<(), EmitError> {
        if self.top_k == 0 || self.top_k > self.experts {
            return Err(EmitError::no_fit(kernel, "there are fewer experts than choices"));
        }
        Ok(())
    }

    /// Workspace of the logits of one row, f32, padded to whole vectors by minus infinity.
    fn logits_bytes(&self) -> u64 {
        4 * u64::from(self.experts).next_multiple_of(MOST_LANES)
    }

    /// Workspace of the logits of the chosen experts, padded likewise.
    pub(super) fn chosen_bytes(&self) -> u64 {
        4 * u64::from(self.top_k).next_multiple_of(MOST_LANES)
    }

    /// The choice of one row, whose logits stand in the workspace; they are used up.
    pub(super) fn choose<'c>(
        &self,
        k: &mut Builder<'c>,
        [logits, chosen]: [Ptr<'c>; 2],
        [ids, weights]: [Ptr<'c>; 2],
        row: Index<'c>,
    ) {
        let lanes = k.lanes();
        let top_k = u64::from(self.top_k);
        let start = k.mul_constant(row, top_k);
        let (ids, weights) = (k.at::<I32>(ids, start), k.at::<Bf16>(weights, start));

        k.note("choose 1: the divisor over all experts, if wanted");
        let best = largest(k, logits, self.experts);
        let of_all = (!self.renormalize).then(|| sum_of_exp(k, logits, self.experts, best));

        k.note("choose 2: the best of what is left, top_k times");
        let worst = k.f32s(f32::NEG_INFINITY, lanes);
        fill(k, chosen, self.top_k, worst);
        let (zero, end) = (k.index(0), k.index(top_k));
        k.for_each(zero, end, 1, |k, j| {
            let value = largest(k, logits, self.experts);
            let expert = self.first_of(k, logits, value);
            let to = k.at::<I32>(ids, j);
            k.store(to, expert);
            let to = k.at::<F32>(chosen, j);
            k.store(to, value);
            let expert = k.index_of(expert);
            let taken = k.at::<F32>(logits, expert);
            let worst = k.f32(f32::NEG_INFINITY);
            k.store(taken, worst);
        });

        k.note("choose 3: their weights");
        let divisor = of_all.unwrap_or_else(|| sum_of_exp(k, chosen, self.top_k, best));
        k.for_each_piece(top_k, |k, piece| {
            let from = k.at::<F32>(chosen, piece.at);
            let value = k.load::<F32>(from, lanes);
            let value = k.sub(value, best);
            let share = k.exp(value);
            let share = k.div(share, divisor);
            k.write_rounded(weights, piece, share);
        });
    }

    /// The lowest expert whose logit is `value`.
    fn first_of<'c>(&self, k: &mut Builder<'c>, logits: Ptr<'c>, value: F32<'c>) -> I32<'c> {
        let lanes = k.lanes();
        let last = k.i32(self.experts as i32 - 1);
        let none = k.splat(last, lanes);
        let numbers = k.lane_numbers(lanes);
        let lowest = fold_padded(k, self.experts, none, |k, at, lowest: I32<'c>| {
            let from = k.at::<F32>(logits, at);
            let here = k.load::<F32>(from, lanes);
            let at = k.i32_of(at);
            let experts = k.add(numbers, at);
            let equal = k.equal(here, value);
            let lower = k.min(experts, lowest);
            k.select(equal, lower, lowest)
        });
        k.reduce(lowest, Builder::min)
    }
}

/// Run `body` over `length` values in whole vectors, the last one padded.
fn fold_padded<'c, T: crate::emit::Carried<'c>>(
    k: &mut Builder<'c>,
    length: u32,
    first: T,
    body: impl FnOnce(&mut Builder<'c>, Index<'c>, T) -> T,
) -> T {
    let lanes = u64::from(k.lanes());
    let (zero, end) = (k.index(0), k.index(u64::from(length)));
    k.fold(zero, end, lanes, first, body)
}

/// Set `length` values, padded to whole vectors.
fn fill<'c>(k: &mut Builder<'c>, values: Ptr<'c>, length: u32, with: F32<'c>) {
    fold_padded(k, length, (), |k, at, ()| {
        let to = k.at::<F32>(values, at);
        k.store(to, with);
    });
}

/// Greatest of `length` values; what is no number is passed over.
fn largest<'c>(k: &mut Builder<'c>, values: Ptr<'c>, length: u32) -> F32<'c> {
    let lanes = k.lanes();
    let worst = k.f32s(f32::NEG_INFINITY, lanes);
    let best = fold_padded(k, length, worst, |k, at, best: F32<'c>| {
        let from = k.at::<F32>(values, at);
        let here = k.load::<F32>(from, lanes);
        k.max(here, best)
    });
    k.max_lanes(best)
}

/// Sum of `e^(value - best)` over `length` values.
fn sum_of_exp<'c>(k: &mut Builder<'c>, values: Ptr<'c>, length: u32, best: F32<'c>) -> F32<'c> {
    let lanes = k.lanes();
    let none = k.f32s(0.0, lanes);
    let sums = fold_padded(k, length, none, |k, at, sum: F32<'c>| {
        let from = k.at::<F32>(values, at);
        let here = k.load::<F32>(from, lanes);
        let here = k.sub(here, best);
        let raised = k.exp(here);
        k.add(sum, raised)
    });
    k.sum_lanes(sums)
}
