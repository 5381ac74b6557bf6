//! This machine's processor as a device: maps weights and code, and runs steps on its own threads.
//!
//! ```text
//! memory   arena, pool, ports: anonymous, zeroed; code: copied, hashed, then read and run only
//! table    pointers of every (function, class), looked up once
//! crew     threads that walk the steps of a call; bell: how they wait for each other
//! ```
//!
//! The weights stay in the file's own pages, shared with every other process that runs it, or are
//! copied ([`WeightsMemory`]).

mod bell;
mod claims;
mod crew;
mod memory;
pub(crate) mod pin;
mod table;
mod weights;

use std::ops::Range;
use std::slice;
use std::sync::atomic::AtomicBool;

use half::bf16;
use sail_ir::artifact::{Artifact, SectionKind};
use sail_ir::id::BufferId;
use sail_ir::plan::ALIGNMENT;

use super::{Call, Device, DeviceError, Layout, StepTime};
use crew::Crew;
use memory::Code;
pub(super) use memory::{Memory, Plain, plain};
use table::{Regions, Table};
use weights::Weights;
pub use weights::WeightsMemory;

/// Processors that this process may use; the default number of threads.
#[must_use]
pub fn processors() -> usize {
    pin::processors().len().max(1)
}

/// See the module.
pub struct Host {
    layout: Layout,
    crew: Crew,
    times: Vec<StepTime>,
    /// Keeps the code mapped as long as the threads that run it; they are joined before.
    _code: Code,
}

impl Host {
    /// Map, allocate and start `threads` threads (at least one).
    ///
    /// The artifact must be checked for this machine before: its code is not run here, but at the
    /// first call.
    ///
    /// Refuses what the system refuses: memory, executable pages, threads.
    pub fn new(
        artifact: &Artifact,
        layout: &Layout,
        threads: usize,
        weights: WeightsMemory,
    ) -> Result<Self, DeviceError> {
        let manifest = artifact.manifest();
        let section = manifest
            .section(SectionKind::Code)
            .expect("broken invariant `artifact.code`: opened without a section of code");
        let code = Code::new(artifact.code(), &section.blake3)?;
        let threads = threads.max(1);
        let weights = Weights::new(artifact, weights, threads)?;
        let regions = regions(weights, layout)?;
        let table = Table::new(&manifest.plan, layout, &code, &regions);
        let workspaces = (0..threads)
            .map(|_| Memory::new("the workspaces", layout.workspace_bytes.max(ALIGNMENT)))
            .collect::<Result<_, _>>()?;
        let times = layout.capacity.times;
        let crew = Crew::new(table, regions, workspaces, layout.max_steps, times)?;
        let times = Vec::with_capacity(layout.max_steps);
        Ok(Self { layout: layout.clone(), crew, times, _code: code })
    }
}

fn regions(weights: Weights, layout: &Layout) -> Result<Regions, DeviceError> {
    let bf16s = |what, row: u64, rows: u32| {
        let bytes = row.checked_mul(u64::from(rows)).and_then(|values| values.checked_mul(2));
        Memory::new(what, bytes.unwrap_or(u64::MAX))
    };
    let tile = layout.tile_rows.saturating_mul(layout.feature_width);
    let layers = (0..layout.layers).map(|_| Memory::new("the cache", layout.layer_bytes));
    let taps = layout.taps.iter().map(|(_, bytes)| Memory::new("taps", *bytes));
    let choices = layout.choices.iter().map(|(_, bytes)| Memory::new("choices", *bytes));
    Ok(Regions {
        weights,
        arena: Memory::new("the arena", layout.arena_bytes)?,
        control: Memory::new("the control block", 4 * layout.control.words as u64)?,
        pixels: bf16s("pictures", layout.tile_values, layout.max_images)?,
        new_features: bf16s("new features", tile, layout.max_images)?,
        features: bf16s("features", tile, layout.feature_tiles)?,
        logits: bf16s("logits", layout.vocabulary, layout.max_outputs)?,
        chosen: Memory::new("chosen tokens", layout.chosen_bytes())?,
        seen: Memory::new("seen tokens", layout.seen_bytes())?,
        layers: layers.collect::<Result<_, _>>()?,
        taps: taps.collect::<Result<_, _>>()?,
        choices: choices.collect::<Result<_, _>>()?,
    })
}

impl Device for Host {
    fn describe(&self) -> String {
        match self.crew.threads() {
            1 => "host, 1 thread".to_owned(),
            threads => format!("host, {threads} threads"),
        }
    }

    fn control(&mut self) -> &mut [u32] {
        let (start, words) = self.crew.regions().control.parts();
        // SAFETY: the memory is mapped, aligned and initialised; between calls no thread touches
        // it, and a call needs this device mutably.
        unsafe { slice::from_raw_parts_mut(start, words) }
    }

    fn pixels(&mut self) -> &mut [bf16] {
        let (start, values) = self.crew.regions().pixels.parts();
        // SAFETY: as for the control block.
        unsafe { slice::from_raw_parts_mut(start, values) }
    }

    fn run(
        &mut self,
        call: &Call,
        launches: Range<usize>,
        stop: &AtomicBool,
    ) -> Result<(), DeviceError> {
        self.crew.expect_fit(call, &self.layout);
        let finished = self.crew.run(call, launches, stop);
        self.crew.times(call, &mut self.times);
        if finished { Ok(()) } else { Err(DeviceError::Interrupted) }
    }

    fn scratch(&mut self, call: &Call, buffer: BufferId) -> Result<&mut [bf16], DeviceError> {
        let (start, values) = self.crew.scratch(call, buffer);
        // SAFETY: the plan proved that the buffer's rows lie in the arena, which is mapped, aligned
        // and initialised; no thread runs between launches, and a call needs this device mutably.
        Ok(unsafe { slice::from_raw_parts_mut(start, values) })
    }

    fn keep_features(&mut self, first: u32, tiles: u32) -> Result<(), DeviceError> {
        let tile = (self.layout.tile_rows * self.layout.feature_width) as usize;
        let regions = self.crew.regions();
        let (start, values) = regions.features.parts::<bf16>();
        // SAFETY: as for the control block; `new_features` is other memory.
        let kept = unsafe { slice::from_raw_parts_mut(start, values) };
        // SAFETY: no thread runs between calls.
        let new = unsafe { regions.new_features.values::<bf16>() };
        let (first, tiles) = (first as usize, tiles as usize);
        kept[first * tile..(first + tiles) * tile].copy_from_slice(&new[..tiles * tile]);
        Ok(())
    }

    fn features(&self) -> &[bf16] {
        // SAFETY: no thread runs between calls, and a call needs this device mutably.
        unsafe { self.crew.regions().features.values() }
    }

    fn logits(&self) -> &[bf16] {
        // SAFETY: as for the features.
        unsafe { self.crew.regions().logits.values() }
    }

    fn tap(&self, index: usize) -> &[f32] {
        // SAFETY: as for the features.
        unsafe { self.crew.regions().taps[index].values() }
    }

    fn choice(&self, index: usize) -> &[u32] {
        // SAFETY: as for the features.
        unsafe { self.crew.regions().choices[index].values() }
    }

    fn times(&self) -> &[StepTime] {
        &self.times
    }
}
