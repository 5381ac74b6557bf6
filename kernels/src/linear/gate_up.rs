//! `gate_up_silu`: two products of the same rows, `silu(gate) · up`, in one pass over both weights.
//!
//! Gate and up rows alternate by half panels (join `interleave`), so the two vectors of a panel's
//! sums are a gate and an up value of the same outputs.

use sail_ir::plan::{Cost, Grid};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::product::Product;
use super::{Blocks, Columns, Prologue, for_each_panel};
use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::{Bf16, Builder, F32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::table::by_scheme;

/// `y = silu(h · gateᵀ) · (h · upᵀ)` with `h = prologue(x)`: `x` `[rows, k]`, `y` `[rows, n]`,
/// weight packed from `[2n, k]`. The products stay unrounded, one rounding at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateUpSiluProblem {
    pub rows: Rows,
    /// Outputs: rows of gate, and of up.
    pub n: u32,
    pub k: u32,
    pub scheme: Scheme,
    /// `Direct` or `RmsNorm`.
    pub prologue: Prologue,
}

/// [`GateUpSiluProblem`] with its block shape on one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateUpSilu {
    pub(super) problem: GateUpSiluProblem,
    product: Product,
    blocks: Blocks,
}

impl GateUpSilu {
    #[must_use]
    pub fn new(problem: GateUpSiluProblem, target: &Target) -> Self {
        let product = Product::new(problem.k, problem.scheme, target);
        Self { problem, product, blocks: Blocks::RULE }
    }

    fn panels(&self) -> u32 {
        self.problem.n.div_ceil(self.product.lanes)
    }
}

impl Kernel for GateUpSilu {
    fn family(&self) -> &'static str {
        by_scheme(
            self.problem.scheme,
            [
                "gate_up_silu",
                "gate_up_silu_int8",
                "gate_up_silu_int8_weight",
                "gate_up_silu_int4",
                "gate_up_silu_fp8",
            ],
        )
    }

    fn symbol(&self) -> String {
        let GateUpSiluProblem { rows, n, k, scheme, prologue } = self.problem;
        format!("gate_up_silu.{scheme}.{}.n{n}.k{k}{}", rows.name(), prologue.suffix())
    }

    fn arguments(&self) -> &'static [&'static str] {
        match self.problem.prologue {
            Prologue::RmsNorm { .. } => &["x", "norm", "weight", "y"],
            _ => &["x", "weight", "y"],
        }
    }

    fn writes(&self) -> &'static [u32] {
        match self.problem.prologue {
            Prologue::RmsNorm { .. } => &[3],
            _ => &[2],
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
        let GateUpSiluProblem { n, k, prologue, .. } = self.problem;
        let (n, inner) = (u64::from(n), u64::from(k));
        Cost {
            weight_bytes: u64::from(self.panels()) * self.product.panel_bytes()
                + prologue.parameter_bytes(k),
            row_bytes: 2 * (inner + n),
            row_operations: 4 * n * inner,
            arithmetic: self.product.arithmetic(),
            ..Cost::default()
        }
    }

    fn on_gpu_for(&self, target: &Target, most_rows: u32) -> Option<Box<dyn Kernel>> {
        super::nvptx::gate_up_silu(self, target, most_rows)
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        Some(self)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let (x, parameters, weight, y) = match self.problem.prologue {
            Prologue::Direct => {
                let [x, weight, y] = k.arguments::<3>();
                (x, vec![], weight, y)
            }
            Prologue::RmsNorm { .. } => {
                let [x, norm, weight, y] = k.arguments::<4>();
                (x, vec![norm], weight, y)
            }
            Prologue::ShuffleLayerNorm { .. } => {
                return Err(EmitError::no_fit(self, "no model shuffles pixels before a gate"));
            }
        };
        let workspace = self.product.carve(k, self.blocks.rows.into());
        k.for_each_block(&self.grid(), |k, block| {
            k.note("1 pack: the rows of the block into the workspace");
            self.problem.prologue.fill(k, &self.product, &block, (x, &parameters), workspace);
            k.note("2 multiply: gate and up, panel by panel");
            for_each_panel(k, &block, &self.product, weight, |k, panel, at| {
                self.product.panel(k, (workspace, block.rows), at, |k, row, sums| {
                    let row = k.add(block.first_row, row);
                    store_gated(k, (row, panel), sums, (y, self.problem.n), &self.product);
                });
            });
        });
        Ok(())
    }
}

impl Shaped for GateUpSilu {
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
        let GateUpSiluProblem { rows, n, k, .. } = self.problem;
        let rows = u64::from(count) * u64::from(rows.per);
        let operand = |name: &&str| match *name {
            "x" => Operand::Values(rows * u64::from(k)),
            "weight" => self.product.weight(self.panels().into()),
            "y" => Operand::Output(2 * rows * u64::from(n)),
            _ => Operand::Values(k.into()),
        };
        self.arguments().iter().map(operand).collect()
    }
}

/// Store `silu(gate) · up` of one row and one panel of rows of `n` outputs at `y`.
pub(crate) fn store_gated<'c>(
    k: &mut Builder<'c>,
    (row, panel): (Index<'c>, Index<'c>),
    [gate, up]: [F32<'c>; 2],
    (y, n): (Ptr<'c>, u32),
    product: &Product,
) {
    let column = k.mul_constant(panel, product.lanes.into());
    let start = k.mul_constant(row, n.into());
    let at = k.add(start, column);
    let gated = k.silu(gate);
    let value = k.mul(gated, up);
    let place = k.at::<Bf16>(y, at);
    Columns::of(k, column, n, product).each(k, |k, part| part.store(k, place, value));
}
