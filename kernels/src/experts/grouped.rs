//! Products of rows sorted by expert, each run of rows with its expert's own weight.
//!
//! A work item is one expert and a few neighbouring panels of it; items run over the experts first,
//! so that any contiguous share of them holds about as many rows of each expert, however the rows
//! are spread. A call brings the rows of an expert into the workspace once for all the whole runs
//! over the experts that it has, and reads the panels of those one after another. An expert without
//! rows costs a look at two numbers. Nothing is divided by row count: a step has all its items
//! whenever the call has any rows.
//!
//! Experts are gone through as their weights lie in memory. That is by number, or as a table says
//! ([`GroupedProblem::placed`]); which rows an expert has and where its sums go is by number always, so
//! the table changes no byte of what is given.

use sail_ir::plan::{Cost, Grid};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::{Builder, F32, I32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::linear::product::{Product, Workspace};
use crate::linear::{direct, row_of, store_gated, store_row};
use crate::rows::index_at;
use crate::table::by_scheme;

/// Panels of one work item, by rule: enough that rows which are brought in for one item alone, at the
/// ends of a call, are worth it.
const PANELS_PER_ITEM: u32 = 4;

/// Rows of an expert gathered at once, where nothing is known of how many there are.
const ROWS_AT_ONCE: u32 = 256;

/// Tokens of the largest call of a prompt, for which a load is expected.
pub const CALL_TOKENS: u32 = 512;

/// Bytes of the second cache that gathered rows may take.
const NEAR_BYTES: u64 = 1 << 20;

/// Which rows of `x` an expert multiplies, and what becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouped {
    /// Sorted row `r` is row `order[r] / top_k` of `x`; `y = silu(gate) · up`, `n` outputs.
    GateUpSilu,
    /// Sorted row `r` is row `r` of `x`; `y` is the product.
    Linear,
}

/// `grouped_gate_up_silu` or `grouped_linear`: sorted rows `starts[i] .. starts[i + 1]` are
/// multiplied with the weight of expert `i`. `y` `[rows, n]` in sorted order, one rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupedProblem {
    pub what: Grouped,
    /// Sorted rows: `per` is `top_k`.
    pub rows: Rows,
    pub experts: u32,
    pub n: u32,
    pub k: u32,
    pub scheme: Scheme,
    /// The weights stand in the order of an argument `stored [experts]` i32: its first expert first.
    pub placed: bool,
}

/// [`GroupedProblem`] with its block shape on one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupedProduct {
    pub(super) problem: GroupedProblem,
    product: Product,
    rows_at_once: u32,
    panels_per_item: u32,
    /// Rows expected of the busiest expert in a call of [`CALL_TOKENS`]; 0 where nothing is known.
    busiest: u32,
}

/// The pointers of a grouped product, by what they are.
#[derive(Clone, Copy)]
struct Pointers<'c> {
    x: Ptr<'c>,
    order: Option<Ptr<'c>>,
    starts: Ptr<'c>,
    stored: Option<Ptr<'c>>,
    weight: Ptr<'c>,
    y: Ptr<'c>,
}

/// Work items that share what is brought into the workspace.
struct Part<'c> {
    /// Places of experts: first and one past the last, as are the panels.
    experts: [Index<'c>; 2],
    panels: [Index<'c>; 2],
    /// The item after them.
    next: Index<'c>,
}

impl GroupedProduct {
    #[must_use]
    pub fn new(problem: GroupedProblem, target: &Target) -> Self {
        let product = Product::new(problem.k, problem.scheme, target);
        let (rows_at_once, panels_per_item) = (ROWS_AT_ONCE, PANELS_PER_ITEM);
        Self { problem, product, rows_at_once, panels_per_item, busiest: 0 }
    }

    /// Shape blocks for a busiest expert that is expected to have `rows` rows in a call of
    /// [`CALL_TOKENS`].
    ///
    /// More rows than are usually gathered at once are cut into as few equal blocks as fit the second
    /// cache, so that the expert's weights are read as few times; a quarter more is reckoned with, as
    /// loads differ from call to call.
    #[must_use]
    pub fn for_load(mut self, rows: u32) -> Self {
        self.busiest = rows;
        let wanted = rows + rows / 4;
        if wanted > ROWS_AT_ONCE {
            let fits = u32::try_from(NEAR_BYTES / self.product.row_stride()).unwrap_or(u32::MAX);
            let blocks = wanted.div_ceil(fits.max(ROWS_AT_ONCE));
            let step = self.product.most_rows;
            self.rows_at_once = wanted.div_ceil(blocks).next_multiple_of(step);
        }
        self
    }

    /// Panels of one expert.
    fn panels(&self) -> u32 {
        let outputs = match self.problem.what {
            Grouped::GateUpSilu => self.product.lanes,
            Grouped::Linear => 2 * self.product.lanes,
        };
        self.problem.n.div_ceil(outputs)
    }

    fn pointers<'c>(&self, k: &Builder<'c>) -> Pointers<'c> {
        let pointer =
            |name| self.arguments().iter().position(|a| *a == name).map(|at| k.argument(at));
        let must = |name| pointer(name).expect("every grouped product has this argument");
        Pointers {
            x: must("x"),
            order: pointer("order"),
            starts: must("starts"),
            stored: pointer("stored"),
            weight: must("weight"),
            y: must("y"),
        }
    }

    /// Bring sorted rows `first .. first + rows` into the workspace.
    fn gather<'c>(
        &self,
        k: &mut Builder<'c>,
        (first, rows): (Index<'c>, Index<'c>),
        pointers: Pointers<'c>,
        workspace: Workspace<'c>,
    ) {
        let zero = k.index(0);
        k.for_each(zero, rows, 1, |k, at| {
            let sorted = k.add(first, at);
            let row = match pointers.order {
                None => sorted,
                Some(order) => {
                    let place = k.at::<I32>(order, sorted);
                    let pair = k.load::<I32>(place, 1);
                    let pair = k.index_of(pair);
                    k.div_constant(pair, self.problem.rows.per.into())
                }
            };
            let x = row_of(k, pointers.x, row, self.product.k);
            self.product.pack_row(k, workspace, at, |k, packed| {
                direct(k, &self.product, x, packed);
            });
        });
    }

    fn finish<'c>(
        &self,
        k: &mut Builder<'c>,
        at: (Index<'c>, Index<'c>),
        sums: [F32<'c>; 2],
        y: Ptr<'c>,
    ) {
        let to = (y, self.problem.n);
        match self.problem.what {
            Grouped::GateUpSilu => store_gated(k, at, sums, to, &self.product),
            Grouped::Linear => store_row(k, at, sums, to, &self.product),
        }
    }

    /// What to do from `item` on: all whole runs over the experts that begin there, or else what
    /// is left of one.
    fn part<'c>(&self, k: &mut Builder<'c>, item: Index<'c>, end: Index<'c>) -> Part<'c> {
        let all = u64::from(self.problem.experts);
        let [run, expert] = [k.div_constant(item, all), k.rem_constant(item, all)];
        let left = k.sub(end, item);
        let (zero, one, experts) = (k.index(0), k.index(1), k.index(all));
        let past = k.add(expert, left);
        let past = k.min(past, experts);

        let whole = k.div_constant(left, all);
        let begins = k.less_equal(expert, zero);
        let runs = k.select(begins, whole, one);
        let runs = k.max(runs, one);
        let past_run = k.add(run, runs);
        let panels = k.index(self.panels().into());
        let [first_panel, past_panel] = [run, past_run].map(|run| {
            let panel = k.mul_constant(run, self.panels_per_item.into());
            k.min(panel, panels)
        });

        let done = k.sub(past, expert);
        let done = k.mul(done, runs);
        Part { experts: [expert, past], panels: [first_panel, past_panel], next: k.add(item, done) }
    }

    /// Multiply the rows of the expert at `place` with panels `first_panel .. end_panel`.
    fn expert<'c>(
        &self,
        k: &mut Builder<'c>,
        place: Index<'c>,
        [first_panel, end_panel]: [Index<'c>; 2],
        pointers: Pointers<'c>,
        workspace: Workspace<'c>,
    ) {
        let expert = match pointers.stored {
            None => place,
            Some(stored) => index_at(k, stored, place),
        };
        let start = k.at::<I32>(pointers.starts, expert);
        let after = k.at_bytes_constant(start, 4);
        let [begin, end] = [start, after].map(|place| {
            let row = k.load::<I32>(place, 1);
            k.index_of(row)
        });
        k.for_each(begin, end, self.rows_at_once.into(), |k, first| {
            let left = k.sub(end, first);
            let most = k.index(self.rows_at_once.into());
            let count = k.min(left, most);
            self.gather(k, (first, count), pointers, workspace);
            k.for_each(first_panel, end_panel, 1, |k, panel| {
                let before = k.mul_constant(place, self.panels().into());
                let before = k.add(before, panel);
                let offset = k.mul_constant(before, self.product.panel_bytes());
                let weight = k.at_bytes(pointers.weight, offset);
                self.product.panel(k, (workspace, count), weight, |k, row, sums| {
                    let row = k.add(first, row);
                    self.finish(k, (row, panel), sums, pointers.y);
                });
            });
        });
    }
}

impl Kernel for GroupedProduct {
    fn family(&self) -> &'static str {
        let names = match self.problem.what {
            Grouped::GateUpSilu => [
                "grouped_gate_up_silu",
                "grouped_gate_up_silu_int8",
                "grouped_gate_up_silu_int8_weight",
                "grouped_gate_up_silu_int4",
                "grouped_gate_up_silu_fp8",
            ],
            Grouped::Linear => [
                "grouped_linear",
                "grouped_linear_int8",
                "grouped_linear_int8_weight",
                "grouped_linear_int4",
                "grouped_linear_fp8",
            ],
        };
        by_scheme(self.problem.scheme, names)
    }

    fn symbol(&self) -> String {
        let GroupedProblem { what, rows, experts, n, k, scheme, placed } = self.problem;
        let what = match what {
            Grouped::GateUpSilu => "grouped_gate_up_silu",
            Grouped::Linear => "grouped_linear",
        };
        let placed = if placed { ".placed" } else { "" };
        format!("{what}.{scheme}.{}.x{experts}.n{n}.k{k}{placed}", rows.name())
    }

    fn arguments(&self) -> &'static [&'static str] {
        match (self.problem.what, self.problem.placed) {
            (Grouped::GateUpSilu, false) => &["x", "order", "starts", "weight", "y"],
            (Grouped::GateUpSilu, true) => &["x", "order", "starts", "stored", "weight", "y"],
            (Grouped::Linear, false) => &["x", "starts", "weight", "y"],
            (Grouped::Linear, true) => &["x", "starts", "stored", "weight", "y"],
        }
    }

    fn writes(&self) -> &'static [u32] {
        match self.arguments().len() {
            4 => &[3],
            5 => &[4],
            _ => &[5],
        }
    }

    fn grid(&self) -> Grid {
        let columns = self.panels().div_ceil(self.panels_per_item) * self.problem.experts;
        // A call brings rows in once for all its runs over the experts: half of all items, which is
        // one of two threads' share, should stay together.
        let run = columns.div_ceil(2);
        Grid { run, ..self.problem.rows.grid(u32::MAX, columns) }
    }

    fn workspace_bytes(&self) -> u64 {
        self.product.workspace_bytes(self.rows_at_once.into())
    }

    fn on_gpu_for(&self, target: &Target, most_rows: u32) -> Option<Box<dyn Kernel>> {
        super::grouped_nvptx::grouped(self, target, most_rows)
    }

    fn cost(&self) -> Cost {
        let GroupedProblem { what, experts, n, k, .. } = self.problem;
        let (n, inner) = (u64::from(n), u64::from(k));
        let products = if what == Grouped::GateUpSilu { 2 } else { 1 };
        let panels = u64::from(experts) * u64::from(self.panels());
        Cost {
            weight_bytes: panels * self.product.panel_bytes(),
            row_weight_bytes: u64::from(self.panels()) * self.product.panel_bytes(),
            row_bytes: 2 * (inner + n),
            row_operations: 2 * products * n * inner,
            arithmetic: self.product.arithmetic(),
            ..Cost::default()
        }
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        Some(self)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let pointers = self.pointers(k);
        let workspace = self.product.carve(k, self.rows_at_once.into());
        let (begin, end) = (k.begin(), k.end());
        k.while_below(begin, end, |k, item| {
            let part = self.part(k, item, end);
            let [first, past] = part.experts;
            k.for_each(first, past, 1, |k, place| {
                self.expert(k, place, part.panels, pointers, workspace);
            });
            part.next
        });
        Ok(())
    }
}

impl Shaped for GroupedProduct {
    fn config(&self) -> Config {
        let Product { most_rows, foreseeing_rows: foresee, .. } = self.product;
        let (block, panels) = (self.rows_at_once, self.panels_per_item);
        let values = [("rows", most_rows), ("block", block), ("panels", panels)];
        Config::new(&[values.as_slice(), &[("foresee", foresee)]].concat())
    }

    fn space(&self) -> Vec<Parameter> {
        let [rows, foresee] = self.product.space();
        let block = Parameter::block(self.rows_at_once, self.product.row_stride());
        let most = self.panels();
        let panels = Parameter::new("panels", self.panels_per_item, |panels| panels <= most);
        vec![rows, block, panels, foresee]
    }

    fn with(&self, config: &Config) -> Box<dyn Kernel> {
        let product = self.product.with(config);
        let (rows_at_once, panels_per_item) = (config.get("block"), config.get("panels"));
        Box::new(Self { product, rows_at_once, panels_per_item, ..*self })
    }

    fn operands(&self, count: u32) -> Vec<Operand> {
        let GroupedProblem { what, rows, experts, n, k, .. } = self.problem;
        let sorted = count * rows.per;
        let read = if what == Grouped::GateUpSilu { count } else { sorted };
        let operand = |name: &&str| match *name {
            "x" => Operand::Values(u64::from(read) * u64::from(k)),
            "order" => Operand::Numbers((0..sorted.cast_signed()).collect()),
            "starts" => Operand::Numbers(self.starts(count)),
            "stored" => Operand::Numbers((0..experts.cast_signed()).collect()),
            "weight" => self.product.weight(u64::from(experts) * u64::from(self.panels())),
            _ => Operand::Output(2 * u64::from(sorted) * u64::from(n)),
        };
        self.arguments().iter().map(operand).collect()
    }
}

impl GroupedProduct {
    /// Where the rows of each expert start: the busiest one's first, those of all others as even as
    /// they can be.
    fn starts(&self, count: u32) -> Vec<i32> {
        let experts = u64::from(self.problem.experts);
        let rows = u64::from(count) * u64::from(self.problem.rows.per);
        let busiest = u64::from(self.busiest) * u64::from(count) / u64::from(CALL_TOKENS);
        let first = busiest.max(rows / experts).min(rows);
        let start = |expert: u64| match expert {
            0 => 0,
            1 if experts == 1 => rows,
            _ => first + (rows - first) * (expert - 1) / (experts - 1),
        };
        (0..=experts).map(|expert| i32::try_from(start(expert)).expect("rows of a call")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_the_load_in_as_few_equal_parts_as_the_cache_has_room_for() {
        let target = Target::parse("x86-64-v4+avx512bf16").unwrap();
        let at_once = |k, busiest| {
            let rows = Rows { per: 8, ..Rows::TOKENS };
            let (what, scheme) = (Grouped::Linear, Scheme::Bf16);
            let problem =
                GroupedProblem { what, rows, experts: 128, n: 64, k, scheme, placed: true };
            GroupedProduct::new(problem, &target).for_load(busiest).rows_at_once
        };
        assert_eq!([0, 32, 204].map(|busiest| at_once(2048, busiest)), [ROWS_AT_ONCE; 3]);
        assert_eq!(at_once(768, 400), 504); // all rows of 1,600 bytes at once
        assert_eq!(at_once(2048, 400), 252); // two blocks of 4,160
    }
}
