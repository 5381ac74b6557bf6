//! Attention of the decoder and of the vision tower, and what stands before it.

use sail_ir::CacheScheme;
use sail_kernels::attention::{
    Attention, CacheWrite, PageLayout, QkNormRopeWrite, Rope, TileAttention, rope_table,
};
use sail_kernels::emit::run::{Counts, i32_bytes, poisoned};

use crate::{Case, drawn, images};

const HEADS: u32 = 16;
const KV_HEADS: u32 = 8;
const HEAD_DIM: u32 = 128;
const WIDTH: u32 = HEADS * HEAD_DIM;
const TILE_HEADS: u32 = 12;
const PATCHES: u32 = 1_024;

/// First row and one past the last: decode near and far, a prompt, a chunk after a long prompt.
const CALLS: [(u32, u32); 4] = [(512, 513), (2_860, 2_861), (0, 512), (2_048, 2_560)];

/// One token, and a prompt: what does not depend on how much is cached.
const WRITES: [(u32, u32); 2] = [(512, 513), (0, 512)];

pub fn decoder() -> Vec<Case> {
    let calls = CacheScheme::ALL.into_iter().flat_map(|scheme| CALLS.map(|call| (scheme, call)));
    let cases = calls.map(|(scheme, (from, to))| {
        let call = Call::new(scheme, from, to);
        let kernel = Attention::new(HEADS, KV_HEADS, call.layout());
        let seen = u64::from(from + to).div_ceil(2);
        Case::new(kernel, call.counts(), move |name| call.buffer(name)).attending(seen)
    });
    cases.collect()
}

/// What fills the cache, in one step and in several.
pub fn cache() -> Vec<Case> {
    let schemes = CacheScheme::ALL.into_iter();
    let calls = schemes.flat_map(|scheme| WRITES.map(|(from, to)| Call::new(scheme, from, to)));
    let mut cases = Vec::new();
    for call in calls {
        let (heads, kv_heads, layout) = (HEADS, KV_HEADS, call.layout());
        let fused = QkNormRopeWrite { heads, kv_heads, layout, eps: 1e-6 };
        cases.push(Case::new(fused, call.counts(), move |name| call.buffer(name)));
        let write = CacheWrite { kv_heads, layout };
        cases.push(Case::new(write, call.counts(), move |name| call.buffer(name)));
        if call.scheme == CacheScheme::Bf16 {
            let rope = Rope { heads, head_dim: HEAD_DIM };
            cases.push(Case::new(rope, call.counts(), move |name| call.buffer(name)));
        }
    }
    cases
}

pub fn tile() -> Vec<Case> {
    let kernel = TileAttention::new(PATCHES, TILE_HEADS, HEAD_DIM);
    let values = PATCHES * TILE_HEADS * HEAD_DIM;
    let buffer = move |name: &str| match name {
        "qkv" => drawn(5, 3 * values),
        _ => poisoned(2 * values as usize),
    };
    vec![Case::new(kernel, images(1), buffer)]
}

/// Positions `from .. to` of one slot whose pages stand in reverse order.
#[derive(Clone, Copy)]
struct Call {
    scheme: CacheScheme,
    from: u32,
    to: u32,
}

impl Call {
    fn new(scheme: CacheScheme, from: u32, to: u32) -> Self {
        Self { scheme, from, to }
    }

    fn layout(self) -> PageLayout {
        PageLayout { head_dim: HEAD_DIM, scheme: self.scheme }
    }

    fn tokens(self) -> u32 {
        self.to - self.from
    }

    fn pages(self) -> u32 {
        self.to.div_ceil(64)
    }

    fn counts(self) -> Counts {
        Counts { tokens: self.tokens(), pages_per_slot: self.pages(), ..Counts::default() }
    }

    fn buffer(self, name: &str) -> Vec<u8> {
        let tokens = self.tokens();
        match name {
            "q" | "x" => drawn(1, tokens * WIDTH),
            "qkv" => drawn(2, tokens * (HEADS + 2 * KV_HEADS) * HEAD_DIM),
            "k" | "v" => drawn(3, tokens * KV_HEADS * HEAD_DIM),
            "q_norm" | "k_norm" => drawn(4, HEAD_DIM),
            "table" => {
                let table = rope_table(1e6, HEAD_DIM, self.to);
                table.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            "rows" => {
                let rows = (self.from..self.to).flat_map(|position| [0, position as i32]);
                i32_bytes(&rows.collect::<Vec<_>>())
            }
            "page_table" => i32_bytes(&(0..self.pages() as i32).rev().collect::<Vec<_>>()),
            "cache" => {
                let bytes = self.layout().block_bytes() * u64::from(self.pages() * KV_HEADS);
                drawn(6, bytes as u32 / 2)
            }
            "y" | "q_out" => poisoned(2 * (tokens * WIDTH) as usize),
            other => panic!("no kernel here has an argument `{other}`"),
        }
    }
}
