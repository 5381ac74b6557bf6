//! `cache_write`: keys and values of the call's rows into their pages.

use sail_ir::plan::{Cost, Grid, PAGE_POSITIONS};
use sail_ir::scheme::CacheScheme;

use super::page::{Neighbours, PageLayout, Pool, TokenRow, Value};
use crate::emit::{Bf16, Builder};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::rows::row_at;

/// Rows of one work item.
const ROWS_PER_BLOCK: u32 = 8;

/// `k` and `v [t, kv_heads·head_dim]` to the slots and positions in `rows [t, 2]`.
///
/// Rows of one slot stand together in ascending positions; see [`super::page`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheWrite {
    pub kv_heads: u32,
    pub layout: PageLayout,
}

impl Kernel for CacheWrite {
    fn family(&self) -> &'static str {
        match self.layout.scheme {
            CacheScheme::Bf16 => "cache_write",
            CacheScheme::Int8 => "cache_write_int8",
        }
    }

    fn symbol(&self) -> String {
        let PageLayout { head_dim, scheme } = self.layout;
        format!("cache_write.{scheme}.g{}.e{head_dim}", self.kv_heads)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["k", "v", "rows", "page_table", "cache"]
    }

    fn writes(&self) -> &'static [u32] {
        &[4]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        self.layout.staged_bytes()
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::cache_write(self)))
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.kv_heads) * u64::from(self.layout.head_dim);
        let row_bytes = (4 + 2 * self.layout.scheme.value_bytes()) * width;
        Cost { row_bytes, ..Cost::default() }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        let PageLayout { head_dim, .. } = self.layout;
        if !head_dim.is_multiple_of(2) {
            return Err(EmitError::no_fit(self, "a head has an odd number of values"));
        }
        let [keys, values, rows, page_table, cache] = k.arguments::<5>();
        let pool = Pool { layout: self.layout, kv_heads: self.kv_heads, page_table, cache };
        let staged = k.carve(self.layout.staged_bytes());
        let width = self.kv_heads * head_dim;
        let count = k.rows(&self.grid());
        k.for_each_row(&self.grid(), |k, at| {
            let row = TokenRow::load(k, rows, at);
            let neighbours = Neighbours::of(k, row, rows, count);
            let number = k.div_constant(row.position, u64::from(PAGE_POSITIONS));
            let in_page = k.rem_constant(row.position, u64::from(PAGE_POSITIONS));
            let page = pool.page(k, row.slot, number);
            let [key, value] = [keys, values].map(|matrix| row_at(k, matrix, at, width));
            let (zero, heads) = (k.index(0), k.index(u64::from(self.kv_heads)));
            k.for_each(zero, heads, 1, |k, head| {
                let block = pool.block(k, page, head);
                let first = k.mul_constant(head, u64::from(head_dim));
                let [key, value] = [key, value].map(|row| k.at::<Bf16>(row, first));
                pool.store_key(k, block, in_page, (key, staged));
                let value = Value { at: value, stride: 2 * u64::from(width) };
                pool.store_value(k, block, row, (value, staged), &neighbours);
            });
        });
        Ok(())
    }
}
