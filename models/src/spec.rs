//! What we believe about a model after checking: the only description the compiler sees.
//!
//! Words are the glossary's, not the config's: an *image tile* is one square crop of a picture
//! (`max_dynamic_patch` counts those), a *patch* is one position of the vision tower.

use sail_ir::artifact::{
    DecoderCard, ExpertsCard, Generation, ModelCard, PromptSpec, Tiling, TokenIds, VisionCard,
};

/// One vision-language model: tower, adapter, decoder, and how pictures and text get in.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Row of [`crate::MODELS`] this is of: `sail-vl2`.
    pub family: &'static str,
    pub vision: VisionSpec,
    pub adapter: AdapterSpec,
    pub decoder: DecoderSpec,
    pub tiling: Tiling,
    pub prompt: PromptSpec,
    pub tokens: TokenIds,
    pub generation: Generation,
}

impl ModelSpec {
    /// Most image tiles of one picture, with its thumbnail.
    pub fn tiles_per_picture(&self) -> u64 {
        let Tiling { max_tiles, thumbnail, .. } = self.tiling;
        u64::from(max_tiles) + u64::from(thumbnail && max_tiles > 1)
    }

    /// What an artifact says about a model whose stored weights have `parameters` values.
    pub fn card(&self, parameters: u64) -> ModelCard {
        let Self { vision: v, decoder: d, .. } = self;
        let dense = |layer: &FeedForward| match *layer {
            FeedForward::Dense { width } => Some(width),
            FeedForward::Experts { .. } => None,
        };
        let experts = |layer: &FeedForward| match *layer {
            FeedForward::Dense { .. } => None,
            FeedForward::Experts { count, top_k, width, .. } => {
                Some(ExpertsCard { count, top_k, width })
            }
        };
        ModelCard {
            family: self.family.to_owned(),
            parameters,
            vision: VisionCard {
                layers: v.blocks_run(),
                width: v.width,
                heads: v.heads,
                ff_width: v.ff_width,
                patch_size: v.patch_size,
                patches: v.patches(),
            },
            decoder: DecoderCard {
                layers: d.layers(),
                width: d.width,
                heads: d.heads,
                kv_heads: d.kv_heads,
                head_dim: d.head_width,
                ff_width: d.feed_forward.iter().find_map(dense).unwrap_or(0),
                experts: d.feed_forward.iter().find_map(experts),
                vocabulary: d.vocab,
            },
        }
    }
}

/// The vision tower. Each image tile is seen alone: attention never leaves it.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionSpec {
    pub width: u64,
    pub layers: u64,
    pub heads: u64,
    /// `width / heads`.
    pub head_width: u64,
    /// Width of the gated feed-forward.
    pub ff_width: u64,
    /// Edge of an image tile in pixels, a multiple of `2 * patch_size`.
    pub tile_size: u64,
    /// Edge of a patch in pixels.
    pub patch_size: u64,
    /// Colours of a pixel: 3.
    pub channels: u64,
    pub norm_eps: f64,
    pub feature: VisionFeature,
}

/// Which values of the tower the adapter reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisionFeature {
    /// The last block's output, normalized (`select_layer` -1).
    Final,
    /// The raw output of this block, not normalized; the blocks after it are never run.
    Block(u64),
}

impl VisionSpec {
    /// Patches along one edge of an image tile; even.
    pub fn grid(&self) -> u64 {
        self.tile_size / self.patch_size
    }

    /// Patches of one image tile.
    pub fn patches(&self) -> u64 {
        self.grid() * self.grid()
    }

    /// Values of one patch: `channels * patch_size * patch_size`, in this order.
    pub fn patch_values(&self) -> u64 {
        self.channels * self.patch_size * self.patch_size
    }

    /// Blocks that are run.
    pub fn blocks_run(&self) -> u64 {
        match self.feature {
            VisionFeature::Final => self.layers,
            VisionFeature::Block(index) => index + 1,
        }
    }
}

/// Pixel shuffle, layer norm and two products: four patches become one decoder position.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSpec {
    /// `4 * vision.width`.
    pub in_width: u64,
    /// The decoder's width.
    pub out_width: u64,
    pub norm_eps: f64,
    /// Decoder positions of one image tile: `vision.patches() / 4`.
    pub tile_tokens: u64,
}

/// The language model.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    pub width: u64,
    pub heads: u64,
    /// Heads of keys and values; each serves `heads / kv_heads` query heads.
    pub kv_heads: u64,
    /// Values per head, even. `heads * head_width` need not be `width`.
    pub head_width: u64,
    pub norm_eps: f64,
    pub rope_theta: f64,
    /// Rows of the embedding table and of the head; more than there are tokens.
    pub vocab: u64,
    /// Longest run of positions the model was made for.
    pub max_positions: u64,
    /// One per layer, in order.
    pub feed_forward: Vec<FeedForward>,
    pub head: Head,
    /// Whether a checkpoint without a head of its own means the embedding table.
    pub tied: bool,
}

impl DecoderSpec {
    pub fn layers(&self) -> u64 {
        self.feed_forward.len() as u64
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> u64 {
        self.heads * self.head_width
    }

    /// Width of all key heads together, and of all value heads.
    pub fn kv_width(&self) -> u64 {
        self.kv_heads * self.head_width
    }
}

/// The second half of a decoder block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// One gated feed-forward of this width.
    Dense { width: u64 },
    /// `top_k` of `count` gated feed-forwards of `width`, mixed by a router.
    ///
    /// `renormalize`: the chosen experts' shares are divided by their sum.
    Experts { count: u64, top_k: u64, width: u64, renormalize: bool },
}

/// Where the product that gives the logits has its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// In a tensor of its own; that one counts even where the config says that it is tied.
    Stored,
    /// In the embedding table: no tensor of its own is stored, or it has the same bytes.
    Embedding,
}
