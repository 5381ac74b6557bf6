//! `embed_packed`: rows of an embedding table that is stored in the panels of the head.
//!
//! A row's pairs stand a panel's width apart, each in a cache line of its own: 16 times the bytes of a
//! row in one piece, and little beside the head's product, which reads all of them.

use sail_ir::plan::{Cost, Grid};
use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

use super::{ROWS_PER_BLOCK, index_at, row_at};
use crate::emit::{Bf16, Builder};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::linear::product::Product;

/// `ids [t]`, `table [v, width]` packed as `bf16`, to `y [t, width]`.
///
/// Ids are rows of the table: requests are checked before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmbedPacked {
    product: Product,
}

impl EmbedPacked {
    #[must_use]
    pub fn new(width: u32, target: &Target) -> Self {
        Self { product: Product::new(width, Scheme::Bf16, target) }
    }

    fn width(&self) -> u32 {
        self.product.k
    }
}

impl Kernel for EmbedPacked {
    fn family(&self) -> &'static str {
        "embed_packed"
    }

    fn symbol(&self) -> String {
        format!("embed_packed.bf16.w{}", self.width())
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["ids", "table", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[2]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        Cost { row_bytes: 4 * u64::from(self.width()) + 4, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let [ids, table, y] = k.arguments::<3>();
        let outputs = self.product.panel_width();
        let whole_pairs = u64::from(self.width() / 2);
        k.for_each_row(&self.grid(), |k, row| {
            let id = index_at(k, ids, row);
            let (panel, output) = (k.div_constant(id, outputs), k.rem_constant(id, outputs));
            let panel = k.mul_constant(panel, self.product.panel_bytes());
            let from = k.at_bytes(table, panel);
            let output = k.mul_constant(output, 4);
            let from = k.at_bytes(from, output);
            let to = row_at(k, y, row, self.width());
            let (zero, pairs) = (k.index(0), k.index(whole_pairs));
            k.for_each(zero, pairs, 1, |k, pair| {
                let apart = k.mul_constant(pair, 4 * outputs);
                let from = k.at_bytes(from, apart);
                let values = k.load::<Bf16>(from, 2);
                let beside = k.mul_constant(pair, 4);
                let to = k.at_bytes(to, beside);
                k.store(to, values);
            });
            if self.width() % 2 == 1 {
                let from = k.at_bytes_constant(from, whole_pairs * 4 * outputs);
                let value = k.load::<Bf16>(from, 1);
                let to = k.at_bytes_constant(to, whole_pairs * 4);
                k.store(to, value);
            }
        });
        Ok(())
    }
}
