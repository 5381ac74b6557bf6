//! `attention`: causal grouped-query attention over the paged cache, for prefill and decode alike.

use sail_ir::plan::{Cost, Grid, PAGE_POSITIONS};
use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

use super::page::{PageLayout, Pool, TokenRow};
use super::softmax_page::{Page, SoftmaxPage, VECTORS};
use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::{Bf16, Builder, I32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};

/// `q [t, heads·head_dim]` over the pages of the rows' slots to `y`, shaped as `q`.
///
/// Row (slot, position) sees positions `0..=position` of its slot; query head `i` reads kv head
/// `i / (heads/kv_heads)`; scale `head_dim^-0.5`. Scores and softmax f32, weights rounded to bf16
/// before they meet the values, the result rounded once. What a row gives does not depend on the
/// other rows of the call: its pages are visited in ascending order, whole pages at a time.
///
/// A work item is a block of rows with one kv head; items of one kv head follow each other, so that
/// threads share the long and the short rows of a prompt evenly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attention {
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) layout: PageLayout,
    /// Query vectors of a block, as far as whole rows give so many.
    vectors: u32,
}

/// Most rows of a call that decodes: each is of a slot of its own, at [`DECODED`].
const DECODING: u32 = 8;

/// Position of rows that are decoded, when a kernel is run without a model.
const DECODED: u32 = 512;

impl Attention {
    #[must_use]
    pub fn new(heads: u32, kv_heads: u32, layout: PageLayout) -> Self {
        Self { heads, kv_heads, layout, vectors: VECTORS }
    }

    /// Query heads that share a kv head.
    fn group(&self) -> u32 {
        self.heads / self.kv_heads
    }

    fn rows_per_block(&self) -> u32 {
        (self.vectors / self.group().max(1)).max(1)
    }

    /// Most query vectors of a work item.
    fn capacity(&self) -> u64 {
        u64::from(self.rows_per_block()) * u64::from(self.group())
    }

    fn head_dim(&self) -> u32 {
        self.layout.head_dim
    }
}

impl Kernel for Attention {
    fn family(&self) -> &'static str {
        match self.layout.scheme {
            CacheScheme::Bf16 => "attention",
            CacheScheme::Int8 => "attention_int8",
        }
    }

    fn symbol(&self) -> String {
        let PageLayout { head_dim, scheme } = self.layout;
        format!("attention.{scheme}.h{}.g{}.e{head_dim}", self.heads, self.kv_heads)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["q", "cache", "rows", "page_table", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[4]
    }

    fn grid(&self) -> Grid {
        Rows::TOKENS.grid(self.rows_per_block(), self.kv_heads)
    }

    fn workspace_bytes(&self) -> u64 {
        SoftmaxPage::workspace_bytes(self.layout, self.capacity())
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.heads) * u64::from(self.head_dim());
        Cost {
            row_bytes: 4 * width,
            position_operations: 4 * width,
            position_bytes: 2 * u64::from(self.kv_heads) * self.value_bytes(),
            ..Cost::default()
        }
    }

    fn on_gpu_for(&self, target: &Target, most_rows: u32) -> Option<Box<dyn Kernel>> {
        super::flash_block::attention(self, target, most_rows)
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        Some(self)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if !self.head_dim().is_multiple_of(2) {
            return Err(EmitError::no_fit(self, "a head has an odd number of values"));
        }
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(EmitError::no_fit(self, "the heads do not fall into whole groups"));
        }
        let pages = SoftmaxPage::new(k, self.layout, self.capacity());
        let rows = k.argument(2);
        let count = k.rows(&self.grid());
        let per_block = k.index(u64::from(self.rows_per_block()));
        let blocks = k.add(count, per_block);
        let blocks = k.sub_constant(blocks, 1);
        let blocks = k.div(blocks, per_block);
        let (begin, end) = (k.begin(), k.end());
        k.for_each(begin, end, 1, |k, item| {
            let (head, block) = (k.div(item, blocks), k.rem(item, blocks));
            let first = k.mul(block, per_block);
            let past = k.add(first, per_block);
            let past = k.min(past, count);
            let last = k.sub_constant(past, 1);
            k.fold(first, past, 1, first, |k, at, start| {
                let row = TokenRow::load(k, rows, at);
                // The last row is compared with itself, which does not follow it.
                let next = k.add_constant(at, 1);
                let after = k.min(next, last);
                let after = TokenRow::load(k, rows, after);
                let goes_on = row.is_followed_by(k, after);
                k.choose(
                    goes_on,
                    |_| start,
                    |k| {
                        self.run(k, &pages, head, start, row);
                        next
                    },
                )
            });
        });
        Ok(())
    }
}

impl Shaped for Attention {
    fn config(&self) -> Config {
        Config::new(&[("vectors", self.vectors)])
    }

    fn space(&self) -> Vec<Parameter> {
        let least = self.group();
        vec![Parameter::new("vectors", self.vectors, |vectors| vectors >= least)]
    }

    fn with(&self, config: &Config) -> Box<dyn Kernel> {
        Box::new(Self { vectors: config.get("vectors"), ..self.clone() })
    }

    fn operands(&self, count: u32) -> Vec<Operand> {
        let row = |row: u32| if count <= DECODING { [row, DECODED] } else { [0, row] };
        let rows = (0..count).flat_map(row).map(u32::cast_signed).collect();
        let pages = DECODING * self.pages_per_slot();
        let cached = u64::from(pages * self.kv_heads) * self.layout.block_bytes();
        let width = u64::from(self.heads) * u64::from(self.head_dim());
        vec![
            Operand::Values(u64::from(count) * width),
            Operand::Values(cached.div_ceil(2)),
            Operand::Numbers(rows),
            Operand::Numbers((0..pages.cast_signed()).rev().collect()),
            Operand::Output(2 * u64::from(count) * width),
        ]
    }

    fn pages_per_slot(&self) -> u32 {
        DECODED / PAGE_POSITIONS + 1
    }

    fn looks(&self, count: u32) -> [u64; 2] {
        let count = u64::from(count);
        match count <= u64::from(DECODING) {
            true => [count * u64::from(DECODED + 1); 2],
            false => [count, count * (count + 1) / 2],
        }
    }
}

impl Attention {
    /// Rows `start ..= last.at`, neighbouring positions of one slot, with one kv head.
    fn run<'c>(
        &self,
        k: &mut Builder<'c>,
        pages: &SoftmaxPage<'c>,
        head: Index<'c>,
        start: Index<'c>,
        last: TokenRow<'c>,
    ) {
        let [q, cache, _, page_table, y] = k.arguments::<5>();
        let pool = Pool { layout: self.layout, kv_heads: self.kv_heads, page_table, cache };
        let before = k.sub(last.at, start);
        let count = k.add_constant(before, 1);
        let vectors = k.mul_constant(count, u64::from(self.group()));
        let first_position = k.sub(last.position, before);
        let zero = k.index(0);

        k.note("queries of the run");
        pages.clear(k, vectors);
        k.for_each(zero, count, 1, |k, row| {
            let at = k.add(start, row);
            let from = self.group_of(k, q, at, head);
            let vector = k.mul_constant(row, u64::from(self.group()));
            pages.take_queries(k, vector, from, self.group());
            let position = k.add(first_position, row);
            self.limit(k, pages, row, position);
        });

        let page_count = k.div_constant(last.position, u64::from(PAGE_POSITIONS));
        let page_count = k.add_constant(page_count, 1);
        k.for_each(zero, page_count, 1, |k, number| {
            let page = pool.page(k, last.slot, number);
            let block = pool.block(k, page, head);
            let following = k.add_constant(number, 1);
            let final_page = k.sub_constant(page_count, 1);
            let following = k.min(following, final_page);
            let next = pool.page(k, last.slot, following);
            let next = pool.block(k, next, head);
            let base = k.mul_constant(number, u64::from(PAGE_POSITIONS));
            let page = Page { block, scales: self.scales(k, block), next: Some(next) };
            pages.see(k, page, [base, last.position], vectors);
        });

        k.note("results of the run");
        k.for_each(zero, count, 1, |k, row| {
            let at = k.add(start, row);
            let results = self.group_of(k, y, at, head);
            let first = k.mul_constant(row, u64::from(self.group()));
            let group = k.index(u64::from(self.group()));
            k.for_each(zero, group, 1, |k, member| {
                let vector = k.add(first, member);
                let to = k.mul_constant(member, 2 * u64::from(self.head_dim()));
                let to = k.at_bytes(results, to);
                pages.store(k, vector, to);
            });
        });
    }

    /// The scales of the keys and of the values in `block`, if it has any.
    fn scales<'c>(&self, k: &mut Builder<'c>, block: Ptr<'c>) -> Option<[Ptr<'c>; 2]> {
        let lists = (self.layout.scheme == CacheScheme::Int8).then(|| self.layout.scale_offsets(0));
        lists.map(|lists| lists.map(|offset| k.at_bytes_constant(block, offset)))
    }

    /// Bytes of a key or a value of one head, with its scale.
    pub(super) fn value_bytes(&self) -> u64 {
        let scale = if self.layout.scheme == CacheScheme::Bf16 { 0 } else { 4 };
        self.layout.scheme.value_bytes() * u64::from(self.head_dim()) + scale
    }

    /// The query heads of row `at` that read kv head `head`; they stand together.
    fn group_of<'c>(
        &self,
        k: &mut Builder<'c>,
        matrix: Ptr<'c>,
        at: Index<'c>,
        head: Index<'c>,
    ) -> Ptr<'c> {
        let row = k.mul_constant(at, u64::from(self.kv_heads));
        let group = k.add(row, head);
        let first = k.mul_constant(group, u64::from(self.group() * self.head_dim()));
        k.at::<Bf16>(matrix, first)
    }

    /// The vectors of row `row` of the run see positions up to its own.
    fn limit<'c>(
        &self,
        k: &mut Builder<'c>,
        pages: &SoftmaxPage<'c>,
        row: Index<'c>,
        position: Index<'c>,
    ) {
        let first = k.mul_constant(row, u64::from(self.group()));
        let position = k.i32_of(position);
        for member in 0..self.group() {
            let vector = k.add_constant(first, u64::from(member));
            let to = k.at::<I32>(pages.limits, vector);
            k.store(to, position);
        }
    }
}
