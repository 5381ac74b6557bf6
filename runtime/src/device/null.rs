//! A device that computes nothing and believes nothing: it checks every call as a real one would
//! suffer from it.
//!
//! Order: each step's waits are done before it. Sizes: counts fit the class, every buffer holds
//! its rows in memory of the layout's sizes. Content: slots, positions, pages, image rows and
//! output rows of the control block lead nowhere they should not. Logits, features, taps and choices
//! stay zero.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use half::bf16;
use sail_ir::id::{BufferId, Id};
use sail_ir::plan::{Buffer, Count, Function, PAGE_POSITIONS, Place, Plan, Port};

use super::{Call, Device, DeviceError, Layout, StepTime};

/// See the module.
pub struct Null {
    plan: Plan,
    layout: Layout,
    control: Vec<u32>,
    pixels: Vec<bf16>,
    features: Vec<bf16>,
    logits: Vec<bf16>,
    taps: Vec<Vec<f32>>,
    choices: Vec<Vec<u32>>,
    /// What was last looked at between launches.
    scratch: Vec<bf16>,
    /// Image tiles whose features were kept at least once.
    kept_tiles: u32,
    /// Positions of each slot that were written.
    written: Vec<u32>,
}

impl Null {
    /// Room for what the caller reads; nothing else.
    #[must_use]
    pub fn new(plan: &Plan, layout: &Layout) -> Self {
        let room = |row: u64, rows: u32| vec![bf16::ZERO; row as usize * rows as usize];
        let tile = layout.tile_rows * layout.feature_width;
        Self {
            plan: plan.clone(),
            layout: layout.clone(),
            control: vec![0; layout.control.words],
            pixels: room(layout.tile_values, layout.max_images),
            features: room(tile, layout.feature_tiles),
            logits: room(layout.vocabulary, layout.max_outputs),
            taps: layout.taps.iter().map(|(_, bytes)| vec![0.0; *bytes as usize / 4]).collect(),
            choices: layout.choices.iter().map(|(_, bytes)| vec![0; *bytes as usize / 4]).collect(),
            scratch: Vec::new(),
            kept_tiles: 0,
            written: vec![0; layout.capacity.slots as usize],
        }
    }

    fn check(&self, function: &Function, call: &Call) -> Result<(), String> {
        let class = *function.classes.get(call.class).ok_or("there is no such class")?;
        let counted = |count| match count {
            Count::Tokens => call.tokens,
            Count::Images => call.images,
            Count::Outputs => call.outputs,
        };
        if counted(function.count) > class {
            return Err(format!("{} rows do not fit class {class}", counted(function.count)));
        }
        if call.outputs > function.max_outputs {
            return Err(format!("{} outputs of {}", call.outputs, function.max_outputs));
        }
        let counts = [call.tokens, call.images, call.outputs, self.layout.slot_pages];
        if self.control[..4] != counts {
            return Err(format!(
                "the control block counts {:?}, not {counts:?}",
                &self.control[..4]
            ));
        }
        for (_, buffer) in function.buffers.iter() {
            self.check_room(buffer, class, buffer.count.map_or(1, counted))?;
        }
        check_order(function)?;
        if function.count == Count::Tokens {
            self.check_tokens(function, call)?;
        }
        Ok(())
    }

    /// The rows of this call fit the memory behind a buffer.
    fn check_room(&self, buffer: &Buffer, class: u32, rows: u32) -> Result<(), String> {
        let layout = &self.layout;
        let tile = layout.tile_rows * layout.feature_width;
        let room = match &buffer.place {
            Place::Arena { .. } => buffer.bytes.at(class),
            Place::Port { port: Port::Pixels } => {
                Some(2 * layout.tile_values * u64::from(layout.max_images))
            }
            Place::Port { port: Port::Features } => {
                Some(2 * tile * u64::from(layout.feature_tiles.max(layout.max_images)))
            }
            Place::Port { port: Port::Logits } => {
                Some(2 * layout.vocabulary * u64::from(layout.max_outputs))
            }
            Place::Port { port: Port::Chosen } => Some(layout.chosen_bytes()),
            Place::Port { port: Port::Seen } => Some(layout.seen_bytes()),
            Place::Tap { name } => layout.tap(name).map(|index| layout.taps[index].1),
            Place::Choice { layer, .. } => {
                layout.choice(*layer).map(|index| layout.choices[index].1)
            }
            Place::Counters => Some(layout.counter_bytes),
            Place::Weight { .. } | Place::Cache { .. } | Place::Control { .. } => return Ok(()),
        };
        let row = buffer.row_dims.iter().product::<u64>() * buffer.dtype.bytes();
        let needed = row * u64::from(rows);
        match room {
            Some(room) if room >= needed => Ok(()),
            _ => Err(format!("`{}` needs {needed} bytes of {room:?}", buffer.name)),
        }
    }

    fn check_tokens(&self, function: &Function, call: &Call) -> Result<(), String> {
        let layout = &self.layout;
        let at = layout.control;
        for token in 0..call.tokens as usize {
            let id = self.control[at.ids + token];
            if u64::from(id) >= layout.vocabulary {
                return Err(format!("token {id} is not below {}", layout.vocabulary));
            }
            if function.name.starts_with("prefill") {
                let row = self.control[at.image_rows + token].cast_signed();
                let rows = u64::from(self.kept_tiles) * layout.tile_rows;
                if row < -1 || i64::from(row) >= i64::try_from(rows).unwrap_or(i64::MAX) {
                    return Err(format!("token {token} takes image row {row} of {rows}"));
                }
            }
        }
        for output in 0..call.outputs as usize {
            let row = self.control[at.output_rows + output];
            if row >= call.tokens {
                return Err(format!("output {output} is of row {row} of {}", call.tokens));
            }
        }
        Ok(())
    }

    /// Note which positions this call writes: in order, none left out, each in a page of its own.
    fn write_cache(&mut self, call: &Call) -> Result<(), String> {
        let rows = self.layout.control.rows;
        for token in 0..call.tokens as usize {
            let [slot, position] = [0, 1].map(|word| self.control[rows + 2 * token + word]);
            let capacity = self.layout.capacity;
            if slot >= capacity.slots || position >= capacity.context {
                return Err(format!("slot {slot}, position {position} is beyond {capacity:?}"));
            }
            let written = &mut self.written[slot as usize];
            if position > *written {
                return Err(format!("position {position} of slot {slot} follows {written}"));
            }
            *written = position + 1;
        }
        self.check_pages()
    }

    fn check_pages(&self) -> Result<(), String> {
        let layout = &self.layout;
        let mut held = vec![false; layout.pages as usize];
        for (slot, written) in self.written.iter().enumerate() {
            let start = layout.control.page_table + slot * layout.slot_pages as usize;
            let pages = written.div_ceil(PAGE_POSITIONS) as usize;
            for page in &self.control[start..start + pages] {
                match held.get_mut(*page as usize) {
                    None => {
                        return Err(format!(
                            "page {page} of slot {slot} is beyond {}",
                            layout.pages
                        ));
                    }
                    Some(true) => return Err(format!("page {page} has two holders")),
                    Some(free) => *free = true,
                }
            }
        }
        Ok(())
    }
}

/// A step comes after all it waits for, and every step is in a launch.
fn check_order(function: &Function) -> Result<(), String> {
    let mut done = vec![false; function.steps.len()];
    for launch in &function.launches {
        for index in launch.steps[0].index()..launch.steps[1].index() {
            let step = &function.steps[Id::new(index)];
            if let Some(wait) = step.waits.iter().find(|wait| !done[wait.index()]) {
                return Err(format!("step {index} waits for step {wait}, which comes later"));
            }
            done[index] = true;
        }
    }
    match done.iter().position(|done| !done) {
        Some(step) => Err(format!("step {step} is never carried out")),
        None => Ok(()),
    }
}

impl Device for Null {
    fn describe(&self) -> String {
        "null".to_owned()
    }

    fn control(&mut self) -> &mut [u32] {
        &mut self.control
    }

    fn pixels(&mut self) -> &mut [bf16] {
        &mut self.pixels
    }

    fn run(
        &mut self,
        call: &Call,
        launches: Range<usize>,
        stop: &AtomicBool,
    ) -> Result<(), DeviceError> {
        if stop.load(Ordering::SeqCst) {
            return Err(DeviceError::Interrupted);
        }
        if launches.start > 0 {
            return Ok(()); // the call was checked with its first launch
        }
        let function = &self.plan.functions[call.function];
        let name = function.name.clone();
        let counts_tokens = function.count == Count::Tokens;
        let checked = self.check(function, call);
        let checked = checked.and_then(|()| match counts_tokens {
            true => self.write_cache(call),
            false => Ok(()),
        });
        checked.map_err(|what| DeviceError::Unsound { what: format!("{what}, in `{name}`") })
    }

    fn scratch(&mut self, call: &Call, buffer: BufferId) -> Result<&mut [bf16], DeviceError> {
        let buffer = &self.plan.functions[call.function].buffers[buffer];
        let rows = match buffer.count {
            Some(Count::Tokens) => call.tokens,
            Some(Count::Images) => call.images,
            Some(Count::Outputs) => call.outputs,
            None => 1,
        };
        let values = u64::from(rows) * buffer.row_dims.iter().product::<u64>();
        self.scratch = vec![bf16::ZERO; values as usize];
        Ok(&mut self.scratch)
    }

    fn keep_features(&mut self, first: u32, tiles: u32) -> Result<(), DeviceError> {
        assert!(first + tiles <= self.layout.feature_tiles, "broken invariant `features.inside`");
        self.kept_tiles = self.kept_tiles.max(first + tiles);
        Ok(())
    }

    fn features(&self) -> &[bf16] {
        &self.features
    }

    fn logits(&self) -> &[bf16] {
        &self.logits
    }

    fn tap(&self, index: usize) -> &[f32] {
        &self.taps[index]
    }

    fn choice(&self, index: usize) -> &[u32] {
        &self.choices[index]
    }

    fn times(&self) -> &[StepTime] {
        &[]
    }
}
