//! `qk_norm_rope_write`: what happens between the q/k/v product and attention, in one pass.

use sail_ir::plan::{Cost, Grid, PAGE_POSITIONS};
use sail_ir::scheme::CacheScheme;

use super::page::{Neighbours, PageLayout, Pool, TokenRow, Value};
use crate::emit::{Bf16, Builder, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};
use crate::norm::inverse_deviation;
use crate::rows::row_at;

/// Rows of one work item.
const ROWS_PER_BLOCK: u32 = 8;

/// `qkv [t, (heads + 2·kv_heads)·head_dim]` (all q, all k, all v) to `q_out [t, heads·head_dim]` and
/// the cache: RMS norm of every query and key head, then RoPE; values as they are.
///
/// f32 from the norm to the turned value, which is rounded once; cosines and sines are the bf16 of
/// the table. Rows of one slot stand together in ascending positions; see [`super::page`].
#[derive(Debug, Clone, PartialEq)]
pub struct QkNormRopeWrite {
    pub heads: u32,
    pub kv_heads: u32,
    pub layout: PageLayout,
    pub eps: f64,
}

/// Angles of one row: half a head of cosines, half of sines.
#[derive(Clone, Copy)]
struct Angles<'c> {
    cosines: Ptr<'c>,
    sines: Ptr<'c>,
}

impl Kernel for QkNormRopeWrite {
    fn family(&self) -> &'static str {
        match self.layout.scheme {
            CacheScheme::Bf16 => "qk_norm_rope_write",
            CacheScheme::Int8 => "qk_norm_rope_write_int8",
        }
    }

    fn symbol(&self) -> String {
        let Self { heads, kv_heads, layout: PageLayout { head_dim, scheme }, eps } = self;
        format!("qk_norm_rope_write.{scheme}.h{heads}.g{kv_heads}.e{head_dim}.eps{eps:e}")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["qkv", "q_norm", "k_norm", "table", "rows", "page_table", "q_out", "cache"]
    }

    fn writes(&self) -> &'static [u32] {
        &[6, 7]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(ROWS_PER_BLOCK, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        self.key_bytes() + self.layout.staged_bytes()
    }

    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        Some(Box::new(super::nvptx::qk_norm_rope_write(self)))
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.heads + 2 * self.kv_heads) * u64::from(self.head_dim());
        Cost {
            row_bytes: 4 * width + 2 * u64::from(self.head_dim()),
            row_operations: 8 * width,
            ..Cost::default()
        }
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if !self.head_dim().is_multiple_of(2) {
            return Err(EmitError::no_fit(self, "a head has an odd number of values"));
        }
        let [qkv, q_norm, k_norm, table, rows, page_table, q_out, cache] = k.arguments::<8>();
        let pool = Pool { layout: self.layout, kv_heads: self.kv_heads, page_table, cache };
        let turned_key = k.carve(self.key_bytes());
        let staged = k.carve(self.layout.staged_bytes());
        let width = (self.heads + 2 * self.kv_heads) * self.head_dim();
        let count = k.rows(&self.grid());
        k.for_each_row(&self.grid(), |k, at| {
            let row = TokenRow::load(k, rows, at);
            let cosines = row_at(k, table, row.position, self.head_dim());
            let sines = k.at_bytes_constant(cosines, u64::from(self.head_dim()));
            let angles = Angles { cosines, sines };
            let qkv = row_at(k, qkv, at, width);

            k.note("1 queries");
            let q_out = row_at(k, q_out, at, self.heads * self.head_dim());
            let (zero, heads) = (k.index(0), k.index(u64::from(self.heads)));
            k.for_each(zero, heads, 1, |k, head| {
                let from = self.head(k, qkv, head);
                let to = self.head(k, q_out, head);
                self.norm_and_turn(k, [from, q_norm, to], angles);
            });

            k.note("2 keys and values");
            let neighbours = Neighbours::of(k, row, rows, count);
            let number = k.div_constant(row.position, u64::from(PAGE_POSITIONS));
            let in_page = k.rem_constant(row.position, u64::from(PAGE_POSITIONS));
            let page = pool.page(k, row.slot, number);
            let kv_heads = k.index(u64::from(self.kv_heads));
            k.for_each(zero, kv_heads, 1, |k, head| {
                let block = pool.block(k, page, head);
                let key = k.add(head, heads);
                let key = self.head(k, qkv, key);
                self.norm_and_turn(k, [key, k_norm, turned_key], angles);
                pool.store_key(k, block, in_page, (turned_key, staged));
                let value = k.add_constant(head, u64::from(self.heads + self.kv_heads));
                let value = self.head(k, qkv, value);
                let value = Value { at: value, stride: 2 * u64::from(width) };
                pool.store_value(k, block, row, (value, staged), &neighbours);
            });
        });
        Ok(())
    }
}

impl QkNormRopeWrite {
    fn head_dim(&self) -> u32 {
        self.layout.head_dim
    }

    fn key_bytes(&self) -> u64 {
        (2 * u64::from(self.head_dim())).next_multiple_of(64)
    }

    /// Head `head` of a row.
    fn head<'c>(&self, k: &mut Builder<'c>, row: Ptr<'c>, head: Index<'c>) -> Ptr<'c> {
        let first = k.mul_constant(head, u64::from(self.head_dim()));
        k.at::<Bf16>(row, first)
    }

    /// One head from `x` to `y`.
    fn norm_and_turn<'c>(
        &self,
        k: &mut Builder<'c>,
        [x, weight, y]: [Ptr<'c>; 3],
        angles: Angles<'c>,
    ) {
        let half = u64::from(self.head_dim() / 2);
        let scale =
            inverse_deviation(k, self.head_dim(), self.eps, |k, piece| k.read_widened(x, piece));
        let across = [x, weight, y].map(|low| k.at_bytes_constant(low, 2 * half));
        k.for_each_piece(half, |k, piece| {
            let [a, b] =
                [[x, weight], across[..2].try_into().expect("two of three")].map(|[x, weight]| {
                    let (x, weight) = (k.read_widened(x, piece), k.read_widened(weight, piece));
                    let normal = k.mul(x, scale);
                    k.mul(normal, weight)
                });
            let [cos, sin] = [angles.cosines, angles.sines].map(|row| k.read_widened(row, piece));
            let (bs, as_) = (k.mul(b, sin), k.mul(a, sin));
            let (ac, bc) = (k.mul(a, cos), k.mul(b, cos));
            let (low, high) = (k.sub(ac, bs), k.add(bc, as_));
            k.write_rounded(y, piece, low);
            k.write_rounded(across[2], piece, high);
        });
    }
}
