//! Fills the control block, picks size classes and cuts work into calls.
//!
//! ```text
//! vision    image tiles → features, in batches of the largest class
//! prefill   token ids of one slot → cache and logits, in chunks of the largest class (`prefill.short`
//!           where a chunk is small)
//! decode    one new id for each of several slots → logits (`decode.wide` where they are many)
//! ```
//!
//! Nothing here allocates: the control block and the pages were sized when the program was opened.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use half::bf16;
use sail_ir::draw::Draw;
use sail_ir::id::BufferId;
use sail_ir::plan::{Function, Place, Plan};

use crate::cache::{Full, Pages};
use crate::device::{Call, Device, DeviceError, Layout, NOTHING, StepTime};
use crate::trace::Limits;

/// Which rows of a prefill the logits are wanted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// The last one.
    Last,
    /// All of them; only as many rows as one call can give are there after each chunk.
    All,
}

/// Which twin of a function to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    Production,
    /// Unfused where values are looked at; fills the taps.
    Tapped,
}

/// A token whose keys and values go to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub slot: u32,
    pub position: u32,
    pub id: u32,
}

/// How a row's tokens are drawn by the device.
#[derive(Debug, Clone, Copy)]
pub struct Drawn<'a> {
    pub draw: Draw,
    /// What the repetition penalty looks at.
    pub history: &'a [u32],
}

/// A run of tokens of one slot.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    pub slot: u32,
    /// Position of the first.
    pub start: u32,
    pub ids: &'a [u32],
    /// For each, its row of the kept features, or -1 for text.
    pub image_rows: &'a [i32],
}

/// What was done in one call, for those who watch.
pub struct Done<'e> {
    pub function: &'e Function,
    pub call: Call,
    pub attention: Attention,
    /// For each token of a prompt, its row of the kept features, or -1 for text; empty when tokens
    /// are generated.
    pub image_rows: &'e [i32],
    /// Which tokens logits were wanted of.
    pub outputs: Range<u32>,
    pub times: &'e [StepTime],
    pub device: &'e dyn Device,
    pub layout: &'e Layout,
}

/// What the caller of a function knows and the device does not.
#[derive(Default)]
struct Told<'t> {
    attention: Attention,
    image_rows: &'t [i32],
    outputs: Range<u32>,
}

/// How far the tokens of a call looked back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attention {
    /// Different cached positions that were looked at, by one token or many.
    pub positions: u64,
    /// Positions that each token looked at, summed over the tokens.
    pub looks: u64,
}

/// Hears of every call that was carried out.
pub type Watch<'w> = &'w mut dyn FnMut(&Done);

/// A device with its plan and its pages.
pub struct Engine {
    device: Box<dyn Device>,
    plan: Plan,
    layout: Layout,
    pages: Pages,
    replace: Option<Replace>,
}

/// Changes tapped values: name, and values of the call's rows.
pub type Replace = Box<dyn FnMut(&str, &mut [bf16]) + Send>;

impl Engine {
    /// Expects a device made for this plan and layout.
    #[must_use]
    pub fn new(device: Box<dyn Device>, plan: Plan, layout: Layout) -> Self {
        let pages = Pages::new(layout.pages, layout.capacity.slots, layout.slot_pages);
        Self { device, plan, layout, pages, replace: None }
    }

    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    #[must_use]
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// What the device can do at best, when it can tell; `None` where the processor of this machine
    /// computes.
    pub fn limits(&mut self) -> Option<Result<Limits, DeviceError>> {
        self.device.limits()
    }

    /// From here on, take the times of steps or leave them, where [`Options::times`] made that
    /// possible; whether leaving them makes calls faster.
    ///
    /// [`Options::times`]: crate::Options::times
    pub fn want_times(&mut self, wanted: bool) -> bool {
        self.device.want_times(wanted)
    }

    /// Let `slot` have positions up to `positions`; it gives back pages beyond.
    ///
    /// Refuses when the pool is used up by other slots.
    pub fn hold(&mut self, slot: u32, positions: u32) -> Result<(), Full> {
        self.pages.truncate(slot, positions);
        self.pages.reserve(slot, positions)
    }

    /// Compute the features of `tiles` image tiles and keep them as tiles `0 .. tiles`.
    ///
    /// `fill` writes the normalised pixels of a range of tiles.
    ///
    /// # Panics
    ///
    /// When the plan has no such function, or there is no room for so many tiles.
    pub fn vision(
        &mut self,
        twin: Twin,
        tiles: u32,
        fill: &mut dyn FnMut(Range<usize>, &mut [bf16]),
        stop: &AtomicBool,
        watch: Watch,
    ) -> Result<(), DeviceError> {
        let function = self.index("vision", twin);
        let largest = self.largest(function);
        assert!(tiles <= self.layout.feature_tiles, "broken invariant `features.inside`: {tiles}");
        let mut first = 0;
        while first < tiles {
            let images = largest.min(tiles - first);
            let values = self.layout.tile_values as usize * images as usize;
            let range = first as usize..(first + images) as usize;
            fill(range, &mut self.device.pixels()[..values]);
            let class = self.class(function, images);
            let call = Call { function, class, tokens: 0, images, outputs: 0 };
            self.call(&call, stop)?;
            self.device.keep_features(first, images)?;
            self.tell(&call, Told::default(), watch);
            first += images;
        }
        Ok(())
    }

    /// Run the prompt, or a part of it, through the decoder.
    ///
    /// Logits of the last chunk stay readable. Expects the slot to [`hold`](Self::hold) the
    /// positions.
    ///
    /// # Panics
    ///
    /// When there are no tokens, or ids and image rows are not of one length.
    pub fn prefill(
        &mut self,
        twin: Twin,
        tokens: Tokens,
        outputs: Outputs,
        stop: &AtomicBool,
        watch: Watch,
    ) -> Result<(), DeviceError> {
        let Tokens { slot, start, ids, image_rows } = tokens;
        assert!(!ids.is_empty(), "broken invariant `prefill.tokens`: none");
        assert_eq!(ids.len(), image_rows.len(), "broken invariant `prefill.image_rows`");
        let function = self.index("prefill", twin);
        let chunk = match outputs {
            Outputs::Last => self.largest(function),
            Outputs::All => self.largest(function).min(self.plan.functions[function].max_outputs),
        };
        let chunks = ids.chunks(chunk as usize).zip(image_rows.chunks(chunk as usize));
        let mut position = start;
        let mut left = ids.len();
        for (ids, image_rows) in chunks {
            let tokens = ids.len() as u32; // a chunk is at most a class, which is a u32
            let function = self.prefill_function(tokens, twin);
            left -= ids.len();
            let wanted = match outputs {
                Outputs::All => 0..tokens,
                Outputs::Last if left == 0 => tokens - 1..tokens,
                Outputs::Last => 0..0,
            };
            let class = self.class(function, tokens);
            let call = Call { function, class, tokens, images: 0, outputs: wanted.len() as u32 };
            let at = self.layout.control;
            let control = self.device.control();
            control[at.ids..][..ids.len()].copy_from_slice(ids);
            for (index, image_row) in image_rows.iter().enumerate() {
                control[at.rows + 2 * index] = slot;
                control[at.rows + 2 * index + 1] = position + index as u32;
                control[at.image_rows + index] = image_row.cast_unsigned();
            }
            for (index, row) in wanted.clone().enumerate() {
                control[at.output_rows + index] = row;
            }
            self.call(&call, stop)?;
            let attention = Attention::of_run(position..position + tokens);
            self.tell(&call, Told { attention, image_rows, outputs: wanted }, watch);
            position += tokens;
        }
        Ok(())
    }

    /// One new token for each row; logits `[rows, v]` are there afterwards, in this order.
    ///
    /// Expects each slot to hold the position.
    ///
    /// # Panics
    ///
    /// When there are more rows than the largest class of `decode`, or none.
    pub fn decode(
        &mut self,
        rows: &[Row],
        stop: &AtomicBool,
        watch: Watch,
    ) -> Result<(), DeviceError> {
        let tokens = u32::try_from(rows.len()).expect("broken invariant `decode.rows`: too many");
        let function = self.decode_function(tokens);
        let class = self.class(function, tokens);
        let call = Call { function, class, tokens, images: 0, outputs: tokens };
        self.fill_decode(rows, &[]);
        let looks = rows.iter().map(|row| u64::from(row.position) + 1).sum();
        self.call(&call, stop)?;
        // Rows are of different slots, so nobody looks where another one does.
        let attention = Attention { positions: looks, looks };
        self.tell(&call, Told { attention, image_rows: &[], outputs: 0..tokens }, watch);
        Ok(())
    }

    /// Most calls of [`Self::decode_ahead`] at once; 0 where the device does not choose.
    #[must_use]
    pub fn most_ahead(&self) -> u32 {
        self.device.most_ahead()
    }

    /// Whether the device draws tokens, besides taking the most probable ones.
    #[must_use]
    pub fn draws_ahead(&self) -> bool {
        self.layout.seen_words > 0
    }

    /// As [`Self::decode`], `times` times, each with the tokens that are `drawn` after those before, one
    /// way for each row, or with the most probable ones: what was chosen, time after time and row after
    /// row; `None` where there was nothing to choose. Logits are not there: decode again to see them.
    ///
    /// Expects each slot to hold all its positions.
    ///
    /// # Panics
    ///
    /// When the device does not choose so often or so, or as [`Self::decode`].
    pub fn decode_ahead<'e>(
        &'e mut self,
        rows: &[Row],
        drawn: &[Drawn],
        times: u32,
        stop: &AtomicBool,
        watch: Watch,
    ) -> Result<impl Iterator<Item = Option<u32>> + use<'e>, DeviceError> {
        let tokens = u32::try_from(rows.len()).expect("broken invariant `decode.rows`: too many");
        let function = self.decode_function(tokens);
        let class = self.class(function, tokens);
        let call = Call { function, class, tokens, images: 0, outputs: tokens };
        let known = drawn.is_empty() || self.draws_ahead() && drawn.len() == rows.len();
        assert!(known, "broken invariant `ahead.draws`: a draw of each row, by the device");
        self.fill_decode(rows, drawn);
        self.fill_seen(drawn);
        self.fill_common(&call);
        self.device.run_ahead(&call, times, stop)?;
        let positions = rows.iter().map(|row| u64::from(row.position) + 1).sum::<u64>();
        for time in 0..times {
            let looks = positions + u64::from(time * tokens);
            let attention = Attention { positions: looks, looks };
            self.tell(&call, Told { attention, image_rows: &[], outputs: 0..tokens }, watch);
        }
        let words = (2 * times * tokens) as usize;
        Ok(self.device.chosen()[..words].chunks_exact(2).map(|words| {
            let chosen = words[0] != NOTHING && words[1] == NOTHING;
            chosen.then_some(words[0])
        }))
    }

    /// Logits of output `row` of the last call.
    #[must_use]
    pub fn logits(&self, row: usize) -> &[bf16] {
        let width = self.layout.vocabulary as usize;
        &self.device.logits()[row * width..(row + 1) * width]
    }

    /// Whether the plan has, and the layout has room for, a function.
    #[must_use]
    pub fn has(&self, name: &str, twin: Twin) -> bool {
        self.find(name, twin).is_some()
    }

    /// Most rows of one call of `decode`.
    #[must_use]
    pub fn decode_rows(&self) -> u32 {
        let functions = ["decode", "decode.wide"].into_iter();
        let functions = functions.filter_map(|name| self.find(name, Twin::Production));
        functions.map(|function| self.largest(function)).max().unwrap_or_default()
    }

    /// The function that decodes so many rows.
    fn decode_function(&self, rows: u32) -> usize {
        let narrow = self.index("decode", Twin::Production);
        match rows <= self.largest(narrow) {
            true => narrow,
            false => self.find("decode.wide", Twin::Production).unwrap_or(narrow),
        }
    }

    /// The function that takes up so many rows of a prompt.
    fn prefill_function(&self, rows: u32, twin: Twin) -> usize {
        let short = self.find("prefill.short", twin);
        let short = short.filter(|function| rows <= self.largest(*function));
        short.unwrap_or_else(|| self.index("prefill", twin))
    }

    /// What the control block says of rows that are decoded; without `drawn`, the most probable tokens are
    /// chosen.
    fn fill_decode(&mut self, rows: &[Row], drawn: &[Drawn]) {
        let at = self.layout.control;
        let control = self.device.control();
        for (index, row) in rows.iter().enumerate() {
            control[at.ids + index] = row.id;
            control[at.rows + 2 * index] = row.slot;
            control[at.rows + 2 * index + 1] = row.position;
            control[at.output_rows + index] = index as u32;
            let draw = drawn.get(index).map_or(Draw::GREEDY, |drawn| drawn.draw);
            control[at.draws + Draw::WORDS * index..][..Draw::WORDS].copy_from_slice(&draw.words());
        }
    }

    /// What rows have seen, where a penalty asks for it.
    fn fill_seen(&mut self, drawn: &[Drawn]) {
        let words = self.layout.seen_words as usize;
        for (index, Drawn { draw, history }) in drawn.iter().enumerate() {
            if draw.penalty == 1.0 {
                continue;
            }
            let seen = &mut self.device.seen()[words * index..][..words];
            seen.fill(0);
            for id in history.iter().filter(|id| u64::from(**id) < self.layout.vocabulary) {
                seen[*id as usize / 32] |= 1 << (id % 32);
            }
        }
    }

    /// What it says of every call.
    fn fill_common(&mut self, call: &Call) {
        let at = self.layout.control;
        let slot_pages = self.layout.slot_pages;
        let control = self.device.control();
        control[..4].copy_from_slice(&[call.tokens, call.images, call.outputs, slot_pages]);
        let table = self.pages.table();
        control[at.page_table..][..table.len()].copy_from_slice(table);
    }

    fn call(&mut self, call: &Call, stop: &AtomicBool) -> Result<(), DeviceError> {
        self.fill_common(call);
        let function = &self.plan.functions[call.function];
        let launches = function.launches.len();
        let Some(replace) = &mut self.replace else {
            return self.device.run(call, 0..launches, stop);
        };
        for launch in 0..launches {
            if launch > 0
                && let Some((name, buffer)) = tapped_input(function, launch)
            {
                replace(name, self.device.scratch(call, buffer)?);
            }
            self.device.run(call, launch..launch + 1, stop)?;
        }
        Ok(())
    }

    /// From now on, let `replace` change tapped values before the launch that reads them begins;
    /// `None`: no more.
    ///
    /// It is given the tap's name and the values of the call's rows. Functions are cut into
    /// launches where the compiler expects this to be wanted: before the choice of experts.
    pub fn replace_tapped(&mut self, replace: Option<Replace>) {
        self.replace = replace;
    }

    fn tell(&self, call: &Call, told: Told<'_>, watch: Watch) {
        let Told { attention, image_rows, outputs } = told;
        watch(&Done {
            function: &self.plan.functions[call.function],
            call: *call,
            attention,
            image_rows,
            outputs,
            times: self.device.times(),
            device: &*self.device,
            layout: &self.layout,
        });
    }

    fn find(&self, name: &str, twin: Twin) -> Option<usize> {
        let suffix = match twin {
            Twin::Production => "",
            Twin::Tapped => ".taps",
        };
        self.plan.functions.iter().position(|function| {
            function.name.strip_prefix(name) == Some(suffix) && self.layout.holds(function)
        })
    }

    fn index(&self, name: &str, twin: Twin) -> usize {
        self.find(name, twin)
            .unwrap_or_else(|| panic!("broken invariant `program.functions`: no {name}, {twin:?}"))
    }

    fn largest(&self, function: usize) -> u32 {
        let classes = &self.plan.functions[function].classes;
        *classes.last().expect("broken invariant `plan.classes`: there are none")
    }

    /// The first class that holds `count` rows.
    fn class(&self, function: usize, count: u32) -> usize {
        let classes = &self.plan.functions[function].classes;
        let class = classes.partition_point(|bound| *bound < count);
        assert!(
            count > 0 && class < classes.len(),
            "broken invariant `call.class`: {count} rows in {classes:?}"
        );
        class
    }
}

/// The value that the first step of a launch reads first, when it is tapped.
fn tapped_input(function: &Function, launch: usize) -> Option<(&str, BufferId)> {
    let first = &function.steps[function.launches[launch].steps[0]];
    let wanted = *first.arguments.first()?;
    let taps = function.steps.iter().filter(|(_, step)| step.arguments.first() == Some(&wanted));
    taps.filter_map(|(_, step)| match &function.buffers[*step.arguments.last()?].place {
        Place::Tap { name } => Some((name.as_str(), wanted)),
        _ => None,
    })
    .next()
}

impl Attention {
    /// Of tokens of one slot, each of which looks at itself and all before it.
    fn of_run(positions: Range<u32>) -> Self {
        let looks = positions.clone().map(|position| u64::from(position) + 1).sum();
        Self { positions: u64::from(positions.end), looks }
    }
}
