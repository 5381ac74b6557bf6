//! `tile_attention`: every patch of an image tile to every patch of the same tile.

use sail_ir::plan::{Cost, Count, Grid, PAGE_POSITIONS};
use sail_ir::scheme::CacheScheme;
use sail_ir::target::Target;

use super::page::{PageLayout, store_first_value, store_key, store_value_pair};
use super::softmax_page::{Page, SoftmaxPage, VECTORS};
use crate::config::{Config, Operand, Parameter, Shaped};
use crate::emit::{Bf16, Builder, I32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows};

const PAGE: u64 = PAGE_POSITIONS as u64;

/// `qkv [n, patches, 3·heads·head_dim]` (all q, all k, all v) to `y [n, patches, heads·head_dim]`,
/// scale `head_dim^-0.5`, no mask. Rounds as `attention` does.
///
/// A work item is a block of patches with one head of one tile; items of one head follow each
/// other. Keys and values of the head are brought into the cache's page layout once, in the
/// thread's workspace, and stay there for the thread's other blocks of the head.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TileAttention {
    pub(super) patches: u32,
    pub(super) heads: u32,
    pub(super) head_dim: u32,
    /// Patches of a block.
    vectors: u32,
}

/// One head of one tile.
#[derive(Clone, Copy)]
struct TileHead<'c> {
    /// Query of the head for patch 0; its key and value follow `heads·head_dim` values later each.
    queries: Ptr<'c>,
    /// Result of the head for patch 0.
    results: Ptr<'c>,
}

impl TileAttention {
    #[must_use]
    pub fn new(patches: u32, heads: u32, head_dim: u32) -> Self {
        Self { patches, heads, head_dim, vectors: VECTORS }
    }

    fn layout(&self) -> PageLayout {
        PageLayout { head_dim: self.head_dim, scheme: CacheScheme::Bf16 }
    }

    fn pages(&self) -> u64 {
        u64::from(self.patches).div_ceil(PAGE)
    }

    fn blocks(&self) -> u32 {
        self.patches.div_ceil(self.vectors)
    }

    fn width(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.head_dim)
    }

    /// Workspace of the keys and values of one head.
    fn packed_bytes(&self) -> u64 {
        self.pages() * self.layout().block_bytes()
    }
}

impl Kernel for TileAttention {
    fn family(&self) -> &'static str {
        "tile_attention"
    }

    fn symbol(&self) -> String {
        format!("tile_attention.p{}.h{}.e{}", self.patches, self.heads, self.head_dim)
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["qkv", "y"]
    }

    fn writes(&self) -> &'static [u32] {
        &[1]
    }

    fn grid(&self) -> Grid {
        Rows { count: Count::Images, per: 1 }.grid(1, self.heads * self.blocks())
    }

    fn workspace_bytes(&self) -> u64 {
        self.packed_bytes() + SoftmaxPage::workspace_bytes(self.layout(), u64::from(self.vectors))
    }

    fn cost(&self) -> Cost {
        let patches = u64::from(self.patches);
        Cost {
            row_bytes: 8 * patches * self.width(),
            row_operations: 4 * patches * patches * self.width(),
            ..Cost::default()
        }
    }

    fn on_gpu_for(&self, target: &Target, _most_rows: u32) -> Option<Box<dyn Kernel>> {
        let by_warpgroups = super::wgmma::tile_attention(self, target);
        by_warpgroups.or_else(|| super::flash_block::tile_attention(self))
    }

    fn shaped(&self) -> Option<&dyn Shaped> {
        Some(self)
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if !self.head_dim.is_multiple_of(2) {
            return Err(EmitError::no_fit(self, "a head has an odd number of values"));
        }
        let [qkv, y] = k.arguments::<2>();
        let packed = k.carve(self.packed_bytes());
        let pages = SoftmaxPage::new(k, self.layout(), u64::from(self.vectors));
        let (begin, end) = (k.begin(), k.end());
        let blocks = k.index(u64::from(self.blocks()));
        let none = k.index(u64::MAX);
        k.fold(begin, end, 1, none, |k, item, packed_last| {
            let (number, block) = (k.div(item, blocks), k.rem(item, blocks));
            let head = self.head(k, [qkv, y], number);
            let same = k.equal(number, packed_last);
            let other = k.not(same);
            k.when(other, |k| self.pack(k, head, packed));
            self.block(k, &pages, head, packed, block);
            number
        });
        Ok(())
    }
}

impl Shaped for TileAttention {
    fn config(&self) -> Config {
        Config::new(&[("vectors", self.vectors)])
    }

    fn space(&self) -> Vec<Parameter> {
        vec![Parameter::new("vectors", self.vectors, |vectors| vectors <= self.patches)]
    }

    fn with(&self, config: &Config) -> Box<dyn Kernel> {
        Box::new(Self { vectors: config.get("vectors"), ..self.clone() })
    }

    fn operands(&self, count: u32) -> Vec<Operand> {
        let values = u64::from(count) * u64::from(self.patches) * self.width();
        vec![Operand::Values(3 * values), Operand::Output(2 * values)]
    }
}

impl TileAttention {
    /// Head `number` counted through the tiles.
    fn head<'c>(
        &self,
        k: &mut Builder<'c>,
        [qkv, y]: [Ptr<'c>; 2],
        number: Index<'c>,
    ) -> TileHead<'c> {
        let heads = u64::from(self.heads);
        let (tile, head) = (k.div_constant(number, heads), k.rem_constant(number, heads));
        let column = k.mul_constant(head, u64::from(self.head_dim));
        let values = u64::from(self.patches) * self.width();
        let [queries, results] = [(qkv, 3 * values), (y, values)].map(|(matrix, values)| {
            let first = k.mul_constant(tile, values);
            let first = k.add(first, column);
            k.at::<Bf16>(matrix, first)
        });
        TileHead { queries, results }
    }

    /// Bring keys and values of the head into pages.
    fn pack<'c>(&self, k: &mut Builder<'c>, head: TileHead<'c>, packed: Ptr<'c>) {
        k.note("keys and values of the head into pages");
        let row_bytes = 6 * self.width();
        let [keys, values] =
            [1, 2].map(|part| k.at_bytes_constant(head.queries, 2 * part * self.width()));
        let layout = self.layout();
        let (zero, patches) = (k.index(0), k.index(u64::from(self.patches)));
        k.for_each(zero, patches, 1, |k, patch| {
            let (page, position) = (k.div_constant(patch, PAGE), k.rem_constant(patch, PAGE));
            let block = k.mul_constant(page, layout.block_bytes());
            let block = k.at_bytes(packed, block);
            let row = k.mul_constant(patch, row_bytes);
            let key = k.at_bytes(keys, row);
            store_key(k, layout, block, position, key);
        });

        let width = u64::from(self.head_dim);
        let words_of = |k: &mut Builder<'c>, pair: Index<'c>| {
            let page = k.div_constant(pair, PAGE / 2);
            let block = k.mul_constant(page, layout.block_bytes());
            let block = k.at_bytes(packed, block);
            let position = k.rem_constant(pair, PAGE / 2);
            let words = k.mul_constant(position, 4 * layout.padded());
            let words = k.at_bytes(block, words);
            k.at_bytes_constant(words, layout.keys_bytes())
        };
        let pairs = k.index(u64::from(self.patches / 2));
        k.for_each(zero, pairs, 1, |k, pair| {
            let words = words_of(k, pair);
            let row = k.mul_constant(pair, 2 * row_bytes);
            let first = k.at_bytes(values, row);
            let second = k.at_bytes_constant(first, row_bytes);
            store_value_pair(k, words, first, second, width);
        });
        if !self.patches.is_multiple_of(2) {
            let words = words_of(k, pairs);
            let last = k.at_bytes_constant(values, u64::from(self.patches - 1) * row_bytes);
            store_first_value(k, words, last, width);
        }
    }

    /// Block `block` of the head's queries against all pages.
    fn block<'c>(
        &self,
        k: &mut Builder<'c>,
        pages: &SoftmaxPage<'c>,
        head: TileHead<'c>,
        packed: Ptr<'c>,
        block: Index<'c>,
    ) {
        let zero = k.index(0);
        let first = k.mul_constant(block, u64::from(self.vectors));
        let patches = k.index(u64::from(self.patches));
        let left = k.sub(patches, first);
        let most = k.index(u64::from(self.vectors));
        let count = k.min(left, most);

        k.note("queries of the block");
        pages.clear(k, count);
        let last = k.i32(self.patches as i32 - 1);
        k.for_each(zero, count, 1, |k, vector| {
            let patch = k.add(first, vector);
            let row = k.mul_constant(patch, 6 * self.width());
            let from = k.at_bytes(head.queries, row);
            pages.take_queries(k, vector, from, 1);
            let limit = k.at::<I32>(pages.limits, vector);
            k.store(limit, last);
        });

        let (page_count, last) = (k.index(self.pages()), k.index(u64::from(self.patches) - 1));
        k.for_each(zero, page_count, 1, |k, page| {
            let block = k.mul_constant(page, self.layout().block_bytes());
            let block = k.at_bytes(packed, block);
            let base = k.mul_constant(page, PAGE);
            pages.see(k, Page { block, scales: None, next: None }, [base, last], count);
        });

        k.note("results of the block");
        k.for_each(zero, count, 1, |k, vector| {
            let patch = k.add(first, vector);
            let row = k.mul_constant(patch, 2 * self.width());
            let to = k.at_bytes(head.results, row);
            pages.store(k, vector, to);
        });
    }
}
