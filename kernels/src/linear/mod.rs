//! Products: `linear` with what precedes and follows it, and `gate_up_silu`.
//!
//! A work item is one panel of outputs for a block of up to [`Blocks::rows`] rows. A thread
//! brings the rows of a block into its workspace once (through the [`Prologue`]) and multiplies
//! them with one panel after the other, reading the weights in the order of their bytes.

mod gate_up;
mod inner;
pub mod nvptx;
pub mod product;
mod prologue;
#[cfg(test)]
mod tests;

use sail_ir::plan::{Cost, Grid};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::{Bf16, Block, Builder, F32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::table::by_scheme;

pub(crate) use gate_up::store_gated;
pub use gate_up::{GateUpSilu, GateUpSiluProblem};
use product::Product;
pub use prologue::Prologue;
pub(crate) use prologue::{direct, rms_scale, row_of};

/// How rows and panels are cut into work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Most rows a thread packs at once.
    pub rows: u32,
    /// Panels that should be multiplied with the same packed rows.
    pub run: u32,
}

impl Blocks {
    /// The rule. Rows: many enough that a panel is multiplied for longer than it takes to come from
    /// memory, few enough that they stay near. Panels: packing a row takes the time of two or three.
    pub const RULE: Self = Self { rows: 256, run: 64 };

    /// What is chosen, with that of `product`.
    pub fn config(self, product: &Product) -> Config {
        let Self { rows, run } = self;
        let (most, foresee) = (product.most_rows, product.foreseeing_rows);
        Config::new(&[("rows", most), ("block", rows), ("run", run), ("foresee", foresee)])
    }

    /// What can be chosen, with that of `product`, for a weight of so many panels.
    pub fn space(self, product: &Product, panels: u32) -> Vec<Parameter> {
        let [rows, foresee] = product.space();
        let block = Parameter::block(self.rows, product.row_stride());
        let run = Parameter::new("run", self.run, |run| run < panels);
        vec![rows, block, run, foresee]
    }

    pub fn of(config: &Config) -> Self {
        Self { rows: config.get("block"), run: config.get("run") }
    }
}

/// What is applied to the sum and the bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    Gelu,
}

/// What follows the sum, in this order; one rounding at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epilogue {
    pub bias: bool,
    pub activation: Activation,
    pub residual: bool,
}

impl Epilogue {
    pub const NONE: Self = Self { bias: false, activation: Activation::None, residual: false };
}

/// `y = activation(prologue(x) · weightᵀ + bias) + residual`: `x` `[rows, k]` (or what the prologue
/// makes that of), `y` `[rows, n]`, weight packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearProblem {
    pub rows: Rows,
    pub n: u32,
    pub k: u32,
    pub scheme: Scheme,
    pub prologue: Prologue,
    pub epilogue: Epilogue,
}

/// [`LinearProblem`] with its block shape on one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    problem: LinearProblem,
    product: Product,
    blocks: Blocks,
}

impl Linear {
    #[must_use]
    pub fn new(problem: LinearProblem, target: &Target) -> Self {
        let product = Product::new(problem.k, problem.scheme, target);
        Self { problem, product, blocks: Blocks::RULE }
    }

    fn panels(&self) -> u32 {
        self.problem.n.div_ceil(self.product.panel_width() as u32)
    }

    /// Apply the epilogue to the sums of one row and store them.
    fn finish<'c>(
        &self,
        k: &mut Builder<'c>,
        (row, column): (Index<'c>, Index<'c>),
        sums: [F32<'c>; 2],
        pointers: &Pointers<'c>,
    ) {
        let Epilogue { activation, .. } = self.problem.epilogue;
        let start = k.mul_constant(row, self.problem.n.into());
        for (half, sum) in sums.into_iter().enumerate() {
            let column = k.add_constant(column, half as u64 * u64::from(self.product.lanes));
            let at = k.add(start, column);
            let columns = Columns::of(k, column, self.problem.n, &self.product);
            columns.each(k, |k, part| {
                let mut value = sum;
                if let Some(bias) = pointers.bias {
                    let place = k.at::<Bf16>(bias, column);
                    let bias = part.load(k, place);
                    value = k.add(value, bias);
                }
                if activation == Activation::Gelu {
                    value = k.gelu(value);
                }
                if let Some(residual) = pointers.residual {
                    let place = k.at::<Bf16>(residual, at);
                    let residual = part.load(k, place);
                    value = k.add(value, residual);
                }
                let place = k.at::<Bf16>(pointers.y, at);
                part.store(k, place, value);
            });
        }
    }
}

/// The pointers of a `linear`, by what they are.
struct Pointers<'c> {
    x: Ptr<'c>,
    parameters: Vec<Ptr<'c>>,
    weight: Ptr<'c>,
    bias: Option<Ptr<'c>>,
    residual: Option<Ptr<'c>>,
    y: Ptr<'c>,
}

impl Kernel for Linear {
    fn family(&self) -> &'static str {
        by_scheme(
            self.problem.scheme,
            ["linear", "linear_int8", "linear_int8_weight", "linear_int4", "linear_fp8"],
        )
    }

    fn symbol(&self) -> String {
        let LinearProblem { rows, n, k, scheme, prologue, epilogue } = self.problem;
        let bias = if epilogue.bias { ".bias" } else { "" };
        let activation = if epilogue.activation == Activation::Gelu { ".gelu" } else { "" };
        let residual = if epilogue.residual { ".residual" } else { "" };
        let before = prologue.suffix();
        format!("linear.{scheme}.{}.n{n}.k{k}{before}{bias}{activation}{residual}", rows.name())
    }

    fn arguments(&self) -> &'static [&'static str] {
        let Epilogue { bias, residual, .. } = self.problem.epilogue;
        match (self.problem.prologue, bias, residual) {
            (Prologue::Direct, false, false) => &["x", "weight", "y"],
            (Prologue::Direct, true, false) => &["x", "weight", "bias", "y"],
            (Prologue::Direct, false, true) => &["x", "weight", "residual", "y"],
            (Prologue::Direct, true, true) => &["x", "weight", "bias", "residual", "y"],
            (Prologue::RmsNorm { .. }, false, false) => &["x", "norm", "weight", "y"],
            (Prologue::RmsNorm { .. }, true, false) => &["x", "norm", "weight", "bias", "y"],
            (Prologue::RmsNorm { .. }, false, true) => &["x", "norm", "weight", "residual", "y"],
            (Prologue::RmsNorm { .. }, true, true) => {
                &["x", "norm", "weight", "bias", "residual", "y"]
            }
            (Prologue::ShuffleLayerNorm { .. }, false, false) => {
                &["x", "ln_w", "ln_b", "weight", "y"]
            }
            (Prologue::ShuffleLayerNorm { .. }, true, false) => {
                &["x", "ln_w", "ln_b", "weight", "bias", "y"]
            }
            (Prologue::ShuffleLayerNorm { .. }, false, true) => {
                &["x", "ln_w", "ln_b", "weight", "residual", "y"]
            }
            (Prologue::ShuffleLayerNorm { .. }, true, true) => {
                &["x", "ln_w", "ln_b", "weight", "bias", "residual", "y"]
            }
        }
    }

    fn writes(&self) -> &'static [u32] {
        match self.arguments().len() {
            3 => &[2],
            4 => &[3],
            5 => &[4],
            6 => &[5],
            _ => &[6],
        }
    }

    fn grid(&self) -> Grid {
        let Blocks { rows, run } = self.blocks;
        Grid { run, ..self.problem.rows.grid(rows, self.panels()) }
    }

    fn workspace_bytes(&self) -> u64 {
        self.product.workspace_bytes(self.blocks.rows.into())
    }

    fn cost(&self) -> Cost {
        let LinearProblem { n, k, prologue, epilogue, .. } = self.problem;
        let (n, inner) = (u64::from(n), u64::from(k));
        let weights = u64::from(self.panels()) * self.product.panel_bytes();
        let bias = if epilogue.bias { 2 * n } else { 0 };
        let residual = if epilogue.residual { 2 * n } else { 0 };
        Cost {
            weight_bytes: weights + bias + prologue.parameter_bytes(k),
            row_bytes: 2 * (inner + n) + residual,
            row_operations: 2 * n * inner,
            arithmetic: self.product.arithmetic(),
            ..Cost::default()
        }
    }

    fn on_gpu_for(&self, target: &Target, most_rows: u32) -> Option<Box<dyn Kernel>> {
        nvptx::linear(self, target, most_rows)
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        Some(self)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if let Prologue::ShuffleLayerNorm { grid, .. } = self.problem.prologue
            && !(grid.is_multiple_of(2) && self.problem.k.is_multiple_of(4))
        {
            return Err(EmitError::no_fit(self, "four patches side by side need an even grid"));
        }
        let pointers = self.pointers(k);
        let workspace = self.product.carve(k, self.blocks.rows.into());
        k.for_each_block(&self.grid(), |k, block| {
            k.note("1 pack: the rows of the block into the workspace");
            let inputs = (pointers.x, pointers.parameters.as_slice());
            self.problem.prologue.fill(k, &self.product, &block, inputs, workspace);
            k.note("2 multiply: panel by panel");
            for_each_panel(k, &block, &self.product, pointers.weight, |k, panel, at| {
                let column = k.mul_constant(panel, self.product.panel_width());
                self.product.panel(k, (workspace, block.rows), at, |k, row, sums| {
                    let row = k.add(block.first_row, row);
                    self.finish(k, (row, column), sums, &pointers);
                });
            });
        });
        Ok(())
    }
}

impl Shaped for Linear {
    fn config(&self) -> Config {
        self.blocks.config(&self.product)
    }

    fn space(&self) -> Vec<Parameter> {
        self.blocks.space(&self.product, self.panels())
    }

    fn with(&self, config: &Config) -> Box<dyn Kernel> {
        let (product, blocks) = (self.product.with(config), Blocks::of(config));
        Box::new(Self { product, blocks, ..*self })
    }

    fn operands(&self, count: u32) -> Vec<Operand> {
        let LinearProblem { rows, n, k, .. } = self.problem;
        let rows = u64::from(count) * u64::from(rows.per);
        let outputs = rows * u64::from(n);
        let operand = |name: &&str| match *name {
            "x" => Operand::Values(rows * u64::from(k)),
            "weight" => self.product.weight(self.panels().into()),
            "bias" => Operand::Values(n.into()),
            "residual" => Operand::Values(outputs),
            "y" => Operand::Output(2 * outputs),
            _ => Operand::Values(k.into()),
        };
        self.arguments().iter().map(operand).collect()
    }
}

impl Linear {
    fn pointers<'c>(&self, k: &Builder<'c>) -> Pointers<'c> {
        let pointer =
            |name| self.arguments().iter().position(|a| *a == name).map(|at| k.argument(at));
        let must = |name| pointer(name).expect("every product has this argument");
        Pointers {
            x: must("x"),
            parameters: ["norm", "ln_w", "ln_b"].into_iter().filter_map(pointer).collect(),
            weight: must("weight"),
            bias: pointer("bias"),
            residual: pointer("residual"),
            y: must("y"),
        }
    }
}

/// Run `body` for each panel of the block's columns, with the address of its weights.
fn for_each_panel<'c>(
    k: &mut Builder<'c>,
    block: &Block<'c>,
    product: &Product,
    weight: Ptr<'c>,
    body: impl FnOnce(&mut Builder<'c>, Index<'c>, Ptr<'c>),
) {
    k.for_each(block.first_column, block.end_column, 1, |k, panel| {
        let offset = k.mul_constant(panel, product.panel_bytes());
        let at = k.at_bytes(weight, offset);
        body(k, panel, at);
    });
}

/// Store the sums of one row and one panel into rows of `n` outputs at `y`.
pub(crate) fn store_row<'c>(
    k: &mut Builder<'c>,
    (row, panel): (Index<'c>, Index<'c>),
    sums: [F32<'c>; 2],
    (y, n): (Ptr<'c>, u32),
    product: &Product,
) {
    let first = k.mul_constant(panel, product.panel_width());
    let start = k.mul_constant(row, n.into());
    for (half, sum) in sums.into_iter().enumerate() {
        let column = k.add_constant(first, half as u64 * u64::from(product.lanes));
        let at = k.add(start, column);
        let place = k.at::<Bf16>(y, at);
        Columns::of(k, column, n, product).each(k, |k, part| part.store(k, place, sum));
    }
}

/// One vector of output columns: whole, part of one, or whole everywhere but in the last panel.
pub(crate) struct Columns<'c> {
    left: Option<Index<'c>>,
    lanes: u32,
}

/// What to do with the vector: all of it, or the first columns.
#[derive(Clone, Copy)]
pub(crate) struct ColumnPart<'c> {
    left: Option<Index<'c>>,
    lanes: u32,
}

impl<'c> Columns<'c> {
    /// The vector that begins at `column` of rows of `n` columns.
    pub(crate) fn of(k: &mut Builder<'c>, column: Index<'c>, n: u32, product: &Product) -> Self {
        let lanes = product.lanes;
        if u64::from(n).is_multiple_of(product.panel_width()) {
            return Self { left: None, lanes };
        }
        let n = k.index(n.into());
        let left = k.sub(n, column);
        let zero = k.index(0);
        Self { left: Some(k.max(left, zero)), lanes }
    }

    pub(crate) fn each(
        &self,
        k: &mut Builder<'c>,
        mut body: impl FnMut(&mut Builder<'c>, ColumnPart<'c>),
    ) {
        let lanes = self.lanes;
        let whole = ColumnPart { left: None, lanes };
        let Some(left) = self.left else { return body(k, whole) };
        let body = std::cell::RefCell::new(body);
        let all = k.index(lanes.into());
        let is_whole = k.less_equal(all, left);
        k.choose(
            is_whole,
            |k| (body.borrow_mut())(k, whole),
            |k| (body.borrow_mut())(k, ColumnPart { left: Some(left), lanes }),
        );
    }
}

impl<'c> ColumnPart<'c> {
    pub(crate) fn load(self, k: &mut Builder<'c>, from: Ptr<'c>) -> F32<'c> {
        match self.left {
            None => k.load_widened(from, self.lanes),
            Some(left) => k.load_widened_partial(from, self.lanes, left),
        }
    }

    pub(crate) fn store(self, k: &mut Builder<'c>, to: Ptr<'c>, value: F32<'c>) {
        match self.left {
            None => k.store_rounded(to, value),
            Some(left) => k.store_rounded_partial(to, value, left),
        }
    }
}
