//! Everything the GPU holds for a program, and the copies of it that this machine sees.

use half::bf16;
use sail_ir::artifact::Artifact;
use sail_ir::plan::{ALIGNMENT, Cuda, Place, Plan, Port};

use super::code::Code;
use super::memory::{DeviceMemory, Pinned};
use super::stream::Stream;
use super::{made, upload};
use crate::device::{DeviceError, Layout};

/// Most calls in a row that go on by themselves: what is computed in vain at the end of an answer.
pub(super) const MOST_AHEAD: u32 = 8;

/// Memory of the GPU that kernels touch.
pub(super) struct Regions {
    pub weights: DeviceMemory,
    pub arena: DeviceMemory,
    pub control: DeviceMemory,
    pub pixels: DeviceMemory,
    /// What `vision` writes.
    pub new_features: DeviceMemory,
    /// What `prefill` reads.
    pub features: DeviceMemory,
    pub logits: DeviceMemory,
    pub chosen: DeviceMemory,
    pub seen: DeviceMemory,
    /// The pools of all layers, one after another.
    pub cache: DeviceMemory,
    /// From one layer's pool to the next.
    cache_pitch: u64,
    pub taps: Vec<DeviceMemory>,
    /// The choices of all layers, one after another.
    pub choices: DeviceMemory,
    /// From one choice to the next.
    pub choices_pitch: u64,
    counters: DeviceMemory,
}

/// What this machine writes and reads of it.
pub(super) struct Mirrors {
    pub control: Pinned<u32>,
    pub pixels: Pinned<bf16>,
    pub features: Pinned<bf16>,
    pub logits: Pinned<bf16>,
    /// Of [`MOST_AHEAD`] calls.
    pub chosen: Pinned<u32>,
    pub seen: Pinned<u32>,
    pub taps: Vec<Pinned<f32>>,
    pub choices: Pinned<u32>,
    /// Of the arena, when it was looked at between launches.
    pub scratch: Option<Pinned<bf16>>,
}

impl Regions {
    /// Allocate, and copy or make the weights.
    ///
    /// Refuses when the GPU has not so much memory free, before it takes any.
    pub fn new(
        artifact: &Artifact,
        layout: &Layout,
        (code, stream): (&Code, &Stream),
    ) -> Result<Self, DeviceError> {
        let context = stream.context();
        let sizes = Sizes::new(layout);
        let bytes = sizes.all().saturating_add(artifact.weight_bytes());
        let (free, total) = context.memory()?;
        if bytes > free {
            let [free, total] = [free, total].map(|bytes| bytes / 1_000_000);
            let because = format!("the GPU has {free} MB free of {total}");
            return Err(DeviceError::Memory { what: "a run", bytes, because });
        }
        let memory = |what, bytes| DeviceMemory::new(context, what, bytes);
        let taps = layout.taps.iter().map(|(_, bytes)| memory("taps", *bytes));
        let this = Self {
            weights: match artifact.recipe() {
                Some(recipe) => made::weights(recipe, code, stream)?,
                None => upload::weights(artifact, stream)?,
            },
            arena: memory("the arena", layout.arena_bytes)?,
            control: memory("the control block", 4 * layout.control.words as u64)?,
            pixels: memory("pictures", sizes.pixels)?,
            new_features: memory("new features", sizes.new_features)?,
            features: memory("features", sizes.features)?,
            logits: memory("logits", sizes.logits)?,
            chosen: memory("chosen tokens", layout.chosen_bytes())?,
            seen: memory("seen tokens", layout.seen_bytes())?,
            cache: memory("the cache", sizes.cache)?,
            cache_pitch: sizes.cache_pitch,
            taps: taps.collect::<Result<_, _>>()?,
            choices: memory("choices", sizes.choices)?,
            choices_pitch: sizes.choices_pitch,
            counters: memory("counters", layout.counter_bytes)?,
        };
        this.counters.zero(stream)?;
        // Positions that nobody wrote have a share of 0 in attention: what stands there must be a
        // number, as 0 times another is none.
        this.cache.zero(stream)?;
        // A tensor map ends with the bound of its class, so a bulk copy brings in rows beyond those of
        // the call. No result has a part of them; they only must have been written once.
        let cuda =
            |kernel: &sail_ir::plan::Kernel| kernel.cuda.as_ref().is_some_and(copies_in_bulk);
        if artifact.manifest().plan.kernels.iter().any(|(_, kernel)| cuda(kernel)) {
            this.arena.zero(stream)?;
        }
        Ok(this)
    }

    /// Where the bytes of a buffer start for a class with this bound.
    pub fn resolve(
        &self,
        place: &Place,
        class: u32,
        (plan, layout): (&Plan, &Layout),
        writes_features: bool,
    ) -> u64 {
        match place {
            Place::Arena { offset } => {
                self.arena.at(offset.at(class).expect("broken invariant `plan.sizes`: arena"))
            }
            Place::Weight { weight } => self.weights.at(plan.weights[*weight].offset),
            Place::Cache { layer } => self.cache.at(self.cache_pitch * u64::from(*layer)),
            Place::Control { field } => self.control.at(4 * layout.control.start(*field) as u64),
            Place::Port { port: Port::Pixels } => self.pixels.at(0),
            Place::Port { port: Port::Features } if writes_features => self.new_features.at(0),
            Place::Port { port: Port::Features } => self.features.at(0),
            Place::Port { port: Port::Logits } => self.logits.at(0),
            Place::Port { port: Port::Chosen } => self.chosen.at(0),
            Place::Port { port: Port::Seen } => self.seen.at(0),
            Place::Tap { name } => {
                let index = layout.tap(name);
                let index = index.expect("broken invariant `layout.taps`: a tap is missing");
                self.taps[index].at(0)
            }
            Place::Choice { layer, .. } => {
                let index = layout.choice(*layer);
                let index = index.expect("broken invariant `layout.choices`: none");
                self.choices.at(self.choices_pitch * index as u64)
            }
            Place::Counters => self.counters.at(0),
        }
    }
}

impl Mirrors {
    pub fn new(regions: &Regions, layout: &Layout, stream: &Stream) -> Result<Self, DeviceError> {
        let context = stream.context();
        let taps = layout.taps.iter().map(|(_, bytes)| Pinned::new(context, "taps", bytes / 4));
        let chosen = layout.chosen_bytes() / 4 * u64::from(MOST_AHEAD);
        Ok(Self {
            control: Pinned::new(context, "the control block", layout.control.words as u64)?,
            pixels: Pinned::new(context, "pictures", regions.pixels.bytes() / 2)?,
            features: Pinned::new(context, "features", regions.features.bytes() / 2)?,
            logits: Pinned::new(context, "logits", regions.logits.bytes() / 2)?,
            chosen: Pinned::new(context, "chosen tokens", chosen)?,
            seen: Pinned::new(context, "seen tokens", layout.seen_bytes() / 4)?,
            taps: taps.collect::<Result<_, _>>()?,
            choices: Pinned::new(context, "choices", regions.choices.bytes() / 4)?,
            scratch: None,
        })
    }
}

/// Bytes of the regions whose size the layout does not say itself.
struct Sizes {
    pixels: u64,
    new_features: u64,
    features: u64,
    logits: u64,
    cache: u64,
    cache_pitch: u64,
    choices: u64,
    choices_pitch: u64,
    rest: u64,
}

impl Sizes {
    /// What does not fit a word is as good as more than any GPU has.
    fn new(layout: &Layout) -> Self {
        let bf16s = |row: u64, rows: u32| row.saturating_mul(u64::from(rows)).saturating_mul(2);
        let tile = layout.tile_rows.saturating_mul(layout.feature_width);
        let pitch = |bytes: u64| bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
        let cache_pitch = pitch(layout.layer_bytes);
        let most = layout.choices.iter().map(|(_, bytes)| *bytes).max();
        let choices_pitch = pitch(most.unwrap_or_default());
        let taps = layout.taps.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
        Self {
            pixels: bf16s(layout.tile_values, layout.max_images),
            new_features: bf16s(tile, layout.max_images),
            features: bf16s(tile, layout.feature_tiles),
            logits: bf16s(layout.vocabulary, layout.max_outputs),
            cache: cache_pitch.saturating_mul(u64::from(layout.layers)),
            cache_pitch,
            choices: choices_pitch.saturating_mul(layout.choices.len() as u64),
            choices_pitch,
            rest: taps
                .saturating_add(layout.arena_bytes)
                .saturating_add(layout.chosen_bytes())
                .saturating_add(layout.seen_bytes())
                .saturating_add(layout.counter_bytes)
                .saturating_add(4 * layout.control.words as u64),
        }
    }

    fn all(&self) -> u64 {
        let Self { pixels, new_features, features, logits, cache, choices, rest, .. } = self;
        [pixels, new_features, features, logits, cache, choices, rest]
            .into_iter()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

fn copies_in_bulk(cuda: &Cuda) -> bool {
    !cuda.tensor_maps.is_empty()
}
