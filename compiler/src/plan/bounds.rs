//! Bounds of a compile: size classes, longest sequence, how the cache is kept.

use sail_ir::scheme::CacheScheme;
use sail_models::ModelSpec;

use crate::error::CompileError;
use crate::options::{DEFAULT_CONTEXT, Options};

/// Bounds and counts that the model and the options fix for all functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Size classes of `prefill`, ascending.
    pub prefill: Vec<u32>,
    /// Those of `prefill.short`, each less than the least of `prefill`; empty where one set of kernels is for
    /// all.
    pub short_prefill: Vec<u32>,
    /// Those of its tapped twin, which keeps every row of many values: they end earlier.
    pub tapped_prefill: Vec<u32>,
    /// Batch buckets of `decode`, ascending.
    pub decode: Vec<u32>,
    /// Those of `decode.wide`, each more than the largest of `decode`; empty where one set of kernels
    /// is for all.
    pub wide_decode: Vec<u32>,
    /// Image tiles of one call of `vision`, ascending.
    pub vision: Vec<u32>,
    /// Logits rows of one `prefill`.
    pub max_outputs: u32,
    pub max_positions: u32,
    pub cache: CacheScheme,
}

impl Bounds {
    /// The bounds for `spec`. Refuses a context that the model was not made for.
    pub fn new(spec: &ModelSpec, options: &Options) -> Result<Self, CompileError> {
        let most = spec.decoder.max_positions;
        let context = options.context.unwrap_or_else(|| {
            u32::try_from(most).map_or(DEFAULT_CONTEXT, |most| most.min(DEFAULT_CONTEXT))
        });
        if context == 0 || u64::from(context) > most {
            return Err(CompileError::Context { asked: context, most });
        }
        let tiles = spec.tiles_per_picture();
        let tiles = u32::try_from(tiles)
            .map_err(|_| CompileError::TooLarge { what: "tiles".to_owned(), size: tiles })?;
        let tapped_prefill = vec![16, 64, 128, 256, 512];
        let mut prefill = tapped_prefill.clone();
        let [mut short_prefill, mut wide_decode] = [Vec::new(), Vec::new()];
        if options.target.gpu().is_some() {
            // A call reads all weights: what takes a CPU seconds of products is a GPU's millisecond.
            // Few rows after many positions are shared out otherwise than many.
            short_prefill = prefill.drain(..3).collect();
            prefill.extend([1024, 2048, 4096]);
            wide_decode.extend([16, 32, 64]);
        }
        let mut bounds = Self {
            prefill,
            short_prefill,
            tapped_prefill,
            decode: vec![1, 2, 4, 8],
            wide_decode,
            vision: (1..=tiles).collect(),
            max_outputs: 8,
            max_positions: context,
            cache: options.cache,
        };
        if options.tap_inputs {
            // Room is kept for every tap of the largest call: of a large model, gigabytes.
            bounds.tapped_prefill.truncate(3);
            bounds.prefill = bounds.tapped_prefill.clone();
            bounds.short_prefill.clear();
            bounds.vision.truncate(1);
        }
        Ok(bounds)
    }
}
