//! `group_by_expert`: pairs sorted by expert, so that every expert's rows stand together.

use sail_ir::plan::{Cost, Grid};

use crate::emit::{Builder, I32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::index_at;

/// `ids [t, k]` to `order [t, k]`, the pair of each sorted row; `place [t, k]`, the sorted row of
/// each pair; `starts [experts + 1]`, the first sorted row of each expert. By expert, then by pair.
///
/// One work item whatever the rows: a counting sort, two passes over the ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupByExpert {
    pub experts: u32,
    pub top_k: u32,
}

impl Kernel for GroupByExpert {
    fn family(&self) -> &'static str {
        "group_by_expert"
    }

    fn symbol(&self) -> String {
        format!("group_by_expert.x{}.k{}", self.experts, self.top_k)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["ids", "order", "place", "starts"]
    }

    fn writes(&self) -> &'static [u32] {
        &[1, 2, 3]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(u32::MAX, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        self.next_bytes()
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::sorting::group_by_expert(self)))
    }

    fn cost(&self) -> Cost {
        let top_k = u64::from(self.top_k);
        Cost { weight_bytes: 4 * u64::from(self.experts), row_bytes: 12 * top_k, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [ids, order, place, starts] = k.arguments::<4>();
        let next = k.carve(self.next_bytes());
        let grid = self.grid();
        k.for_each_block(&grid, |k, block| {
            let pairs = k.mul_constant(block.rows, u64::from(self.top_k));
            let zero = k.index(0);

            k.note("1 count the pairs of every expert");
            let experts = k.index(u64::from(self.experts));
            k.for_each(zero, experts, 1, |k, expert| {
                let none = k.i32(0);
                let at = k.at::<I32>(next, expert);
                k.store(at, none);
            });
            k.for_each(zero, pairs, 1, |k, pair| {
                let expert = index_at(k, ids, pair);
                take_next(k, next, expert);
            });

            k.note("2 starts: sums of the counts");
            let none = k.i32(0);
            let all = k.fold(zero, experts, 1, none, |k, expert, start: I32<'_>| {
                let from = k.at::<I32>(next, expert);
                let count = k.load::<I32>(from, 1);
                k.store(from, start);
                let to = k.at::<I32>(starts, expert);
                k.store(to, start);
                k.add(start, count)
            });
            let to = k.at::<I32>(starts, experts);
            k.store(to, all);

            k.note("3 place every pair at the next row of its expert");
            k.for_each(zero, pairs, 1, |k, pair| {
                let expert = index_at(k, ids, pair);
                let row = take_next(k, next, expert);
                let to = k.at::<I32>(place, pair);
                k.store(to, row);
                let row = k.index_of(row);
                let to = k.at::<I32>(order, row);
                let pair = k.i32_of(pair);
                k.store(to, pair);
            });
        });
        Ok(())
    }
}

impl GroupByExpert {
    /// Workspace of the next free row of every expert.
    fn next_bytes(&self) -> u64 {
        (4 * u64::from(self.experts)).next_multiple_of(64)
    }
}

/// The number kept for `expert`, which then grows by one.
fn take_next<'c>(k: &mut Builder<'c>, next: Ptr<'c>, expert: Index<'c>) -> I32<'c> {
    let at = k.at::<I32>(next, expert);
    let number = k.load::<I32>(at, 1);
    let one = k.i32(1);
    let after = k.add(number, one);
    k.store(at, after);
    number
}
