//! `linear_route`: the router's product, and the choice of experts by it.

use sail_ir::plan::{Cost, Grid};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::Route;
use super::route::MOST_LANES;
use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::{Builder, F32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::linear::product::Product;
use crate::linear::{direct, row_of};

/// Rows of one work item, by rule: two steps of the product.
const ROWS_PER_BLOCK: u32 = 24;

/// [`Route`] of the logits `x · weightᵀ`: `x [t, width]`, `weight [experts, width]` packed as bf16
/// panels.
///
/// The product is that of `linear`, rounded to bf16 as it rounds: the experts chosen are those that
/// tapped logits choose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinearRoute {
    route: Route,
    product: Product,
    block: u32,
}

impl LinearRoute {
    #[must_use]
    pub fn new(width: u32, route: Route, target: &Target) -> Self {
        let product = Product::new(width, Scheme::Bf16, target);
        Self { route, product, block: ROWS_PER_BLOCK }
    }

    fn panels(&self) -> u64 {
        u64::from(self.route.experts).div_ceil(self.product.panel_width())
    }

    /// Workspace of the logits of one row, whole panels of f32.
    fn row_bytes(&self) -> u64 {
        4 * u64::from(self.route.experts).next_multiple_of(2 * MOST_LANES)
    }

    /// Keep the rounded logits of one row and one panel, minus infinity beyond the last expert.
    fn keep<'c>(
        &self,
        k: &mut Builder<'c>,
        (row, panel): (Index<'c>, Index<'c>),
        sums: [F32<'c>; 2],
        logits: Ptr<'c>,
    ) {
        let lanes = self.product.lanes;
        let row = k.mul_constant(row, self.row_bytes());
        let row = k.at_bytes(logits, row);
        let first = k.mul_constant(panel, self.product.panel_width());
        let experts = k.index(self.route.experts.into());
        let worst = k.f32s(f32::NEG_INFINITY, lanes);
        for (half, sum) in sums.into_iter().enumerate() {
            let first = k.add_constant(first, half as u64 * u64::from(lanes));
            let left = k.sub(experts, first);
            let zero = k.index(0);
            let left = k.max(left, zero);
            let inside = k.first(left, lanes);
            let logit = k.rounded(sum);
            let logit = k.select(inside, logit, worst);
            let to = k.at::<F32>(row, first);
            k.store(to, logit);
        }
    }
}

impl Kernel for LinearRoute {
    fn family(&self) -> &'static str {
        "linear_route"
    }

    fn symbol(&self) -> String {
        format!("linear_{}.w{}", self.route.symbol(), self.product.k)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "weight", "ids", "weights"]
    }

    fn writes(&self) -> &'static [u32] {
        &[2, 3]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(self.block, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        let rows = u64::from(self.block);
        let logits = rows * self.row_bytes();
        self.product.workspace_bytes(rows) + logits + self.route.chosen_bytes()
    }

    fn cost(&self) -> Cost {
        let (experts, width) = (u64::from(self.route.experts), u64::from(self.product.k));
        Cost {
            weight_bytes: self.panels() * self.product.panel_bytes(),
            row_bytes: 2 * width + 6 * u64::from(self.route.top_k),
            row_operations: self.route.cost().row_operations + 2 * experts * width,
            ..Cost::default()
        }
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        Some(self)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        self.route.check(self)?;
        let [x, weight, ids, weights] = k.arguments::<4>();
        let workspace = self.product.carve(k, self.block.into());
        let logits = k.carve(u64::from(self.block) * self.row_bytes());
        let chosen = k.carve(self.route.chosen_bytes());
        k.for_each_block(&self.grid(), |k, block| {
            k.note("1 pack: the rows of the block into the workspace");
            let zero = k.index(0);
            k.for_each(zero, block.rows, 1, |k, at| {
                let row = k.add(block.first_row, at);
                let x = row_of(k, x, row, self.product.k);
                self.product.pack_row(k, workspace, at, |k, packed| {
                    direct(k, &self.product, x, packed);
                });
            });

            k.note("2 multiply: panel by panel");
            let panels = k.index(self.panels());
            k.for_each(zero, panels, 1, |k, panel| {
                let offset = k.mul_constant(panel, self.product.panel_bytes());
                let weight = k.at_bytes(weight, offset);
                self.product.panel(k, (workspace, block.rows), weight, |k, row, sums| {
                    self.keep(k, (row, panel), sums, logits);
                });
            });

            k.note("3 choose: row by row");
            k.for_each(zero, block.rows, 1, |k, at| {
                let row = k.add(block.first_row, at);
                let start = k.mul_constant(at, self.row_bytes());
                let logits = k.at_bytes(logits, start);
                self.route.choose(k, [logits, chosen], [ids, weights], row);
            });
        });
        Ok(())
    }
}

impl Shaped for LinearRoute {
    fn config(&self) -> Config {
        let Product { most_rows, foreseeing_rows: foresee, .. } = self.product;
        Config::new(&[("rows", most_rows), ("block", self.block), ("foresee", foresee)])
    }

    fn space(&self) -> Vec<Parameter> {
        let [rows, foresee] = self.product.space();
        let bytes = self.product.row_stride() + self.row_bytes();
        vec![rows, Parameter::block(self.block, bytes), foresee]
    }

    fn with(&self, config: &Config) -> Box<dyn Kernel> {
        let (product, block) = (self.product.with(config), config.get("block"));
        Box::new(Self { product, block, ..self.clone() })
    }

    fn operands(&self, count: u32) -> Vec<Operand> {
        let (rows, chosen) = (u64::from(count), u64::from(count) * u64::from(self.route.top_k));
        vec![
            Operand::Values(rows * u64::from(self.product.k)),
            self.product.weight(self.panels()),
            Operand::Output(4 * chosen),
            Operand::Output(2 * chosen),
        ]
    }
}
