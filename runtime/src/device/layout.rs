//! How much memory of each kind a program needs on any device, from its plan and what is asked.

use std::collections::BTreeMap;

use sail_ir::draw::Draw;
use sail_ir::plan::{
    ALIGNMENT, Buffer, ControlField, Count, Function, PAGE_POSITIONS, Place, Plan, Port,
};

/// What a program shall be ready for; decided when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Conversations at once.
    pub slots: u32,
    /// Positions of each conversation.
    pub context: u32,
    /// Whether tapped functions will be called.
    pub taps: bool,
    /// Whether the times of steps are wanted.
    pub times: bool,
}

/// Where the arrays of the control block start, in words of four bytes.
///
/// Words 0 to 2 hold the counts in the order of `plan::Count`, word 3 the pages of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlLayout {
    pub ids: usize,
    pub rows: usize,
    pub image_rows: usize,
    pub output_rows: usize,
    pub draws: usize,
    pub page_table: usize,
    /// Words in all.
    pub words: usize,
}

/// Sizes of everything a device allocates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub capacity: Capacity,
    pub arena_bytes: u64,
    /// For each thread.
    pub workspace_bytes: u64,
    pub control: ControlLayout,
    /// Most rows of (slot, position) in one call.
    pub max_tokens: u32,
    /// Most image tiles in one call of `vision`.
    pub max_images: u32,
    /// Most rows of logits of one call.
    pub max_outputs: u32,
    /// Values of one image tile.
    pub tile_values: u64,
    /// Decoder positions of one image tile.
    pub tile_rows: u64,
    /// Values of one row of features.
    pub feature_width: u64,
    /// Image tiles whose features are kept.
    pub feature_tiles: u32,
    /// Values of a row of logits.
    pub vocabulary: u64,
    /// Whether functions choose tokens themselves.
    pub chooses: bool,
    /// Words of what a row has seen, where functions draw tokens themselves; else 0.
    pub seen_words: u64,
    /// Most rows of that.
    pub seen_rows: u32,
    /// Pages of the pool, and of one slot.
    pub pages: u32,
    pub slot_pages: u32,
    /// Bytes of one layer's pool.
    pub layer_bytes: u64,
    pub layers: u32,
    /// Room of each tap in bytes, by name; empty without taps.
    pub taps: Vec<(String, u64)>,
    /// Room of the choice of experts of each layer that has them, in bytes; ascending.
    pub choices: Vec<(u32, u64)>,
    /// Room of the counters through which blocks of a kernel meet, in bytes.
    pub counter_bytes: u64,
    /// Most steps of a function.
    pub max_steps: usize,
}

impl Layout {
    /// The sizes of `plan` for `capacity`; `None` when one does not fit this machine's words.
    ///
    /// Functions whose name ends in `.taps` count only when the capacity has taps.
    #[must_use]
    pub fn new(plan: &Plan, capacity: Capacity) -> Option<Self> {
        let functions = || plan.functions.iter().filter(|function| wanted(function, capacity));
        let most = |size: &dyn Fn(&Function) -> Option<u64>| {
            functions().try_fold(0, |most: u64, function| Some(most.max(size(function)?)))
        };
        let bound = |count: Count| {
            let bounds = functions().filter(|function| function.count == count).map(largest);
            bounds.max().unwrap_or_default()
        };
        let max_tokens = bound(Count::Tokens);
        let max_images = bound(Count::Images);
        let max_outputs = functions().map(|function| function.max_outputs).max()?;
        let slot_pages = capacity.context.div_ceil(PAGE_POSITIONS);
        let pages = slot_pages.checked_mul(capacity.slots)?;

        let features = port(functions(), Port::Features);
        let feature_width = features.and_then(|row| row.row_dims.last().copied()).unwrap_or(1);
        let tile_rows = match features.map(|row| row.row_dims.as_slice()) {
            Some([rows, _]) => *rows,
            _ => 1,
        };
        let pixels = port(functions(), Port::Pixels).map_or(Some(1), elements);
        let logits = port(functions(), Port::Logits).map_or(Some(1), elements);
        let drawing =
            functions().filter(|function| port([*function].into_iter(), Port::Seen).is_some());
        let feature_tiles =
            u64::from(capacity.context) / tile_rows.max(1) * u64::from(capacity.slots);

        let block = plan.cache.block_bytes.checked_mul(u64::from(plan.cache.kv_heads))?;
        Some(Self {
            capacity,
            arena_bytes: most(&|function| function.arena_bytes.at(largest(function)))?,
            workspace_bytes: most(&|function| Some(function.workspace_bytes))?,
            control: control(max_tokens, max_outputs, pages)?,
            max_tokens,
            max_images,
            max_outputs,
            tile_values: pixels?,
            tile_rows,
            feature_width,
            feature_tiles: u32::try_from(feature_tiles).ok()?.max(1),
            vocabulary: logits?,
            chooses: port(functions(), Port::Chosen).is_some(),
            seen_words: port(functions(), Port::Seen).map_or(Some(0), elements)?,
            seen_rows: drawing.map(|function| function.max_outputs).max().unwrap_or_default(),
            pages,
            slot_pages,
            layer_bytes: block.checked_mul(u64::from(pages))?,
            layers: plan.cache.layers,
            taps: taps(functions())?,
            choices: choices(functions())?,
            counter_bytes: most(&counters)?,
            max_steps: functions().map(|function| function.steps.len()).max().unwrap_or_default(),
        })
    }

    /// Bytes of what the rows of one call chose.
    #[must_use]
    pub fn chosen_bytes(&self) -> u64 {
        if self.chooses { 8 * u64::from(self.max_outputs) } else { 0 }
    }

    /// Bytes of what the rows of one call have seen.
    #[must_use]
    pub fn seen_bytes(&self) -> u64 {
        self.seen_words.saturating_mul(4 * u64::from(self.seen_rows))
    }

    /// Number of the tap with this name.
    #[must_use]
    pub fn tap(&self, name: &str) -> Option<usize> {
        self.taps.iter().position(|(tap, _)| tap == name)
    }

    /// Number of the choice of this layer.
    #[must_use]
    pub fn choice(&self, layer: u32) -> Option<usize> {
        self.choices.iter().position(|(found, _)| *found == layer)
    }

    /// Does this layout have room for `function`?
    #[must_use]
    pub fn holds(&self, function: &Function) -> bool {
        wanted(function, self.capacity)
    }

    /// Bytes that a device allocates for all of this with `threads` threads.
    #[must_use]
    pub fn total_bytes(&self, threads: u64) -> Option<u64> {
        let values = [
            (self.tile_values, u64::from(self.max_images)),
            (self.tile_rows * self.feature_width, u64::from(self.max_images + self.feature_tiles)),
            (self.vocabulary, u64::from(self.max_outputs)),
        ];
        let mut total = self.arena_bytes.checked_add(self.workspace_bytes.checked_mul(threads)?)?;
        for (row, rows) in values {
            total = total.checked_add(row.checked_mul(rows)?.checked_mul(2)?)?;
        }
        total = total.checked_add(self.layer_bytes.checked_mul(u64::from(self.layers))?)?;
        total = total.checked_add(self.chosen_bytes())?.checked_add(self.seen_bytes())?;
        let taps = self.taps.iter().map(|(_, bytes)| bytes);
        let rest = taps.chain(self.choices.iter().map(|(_, bytes)| bytes));
        let mut rest = rest.chain([&self.counter_bytes]);
        rest.try_fold(total, |total, bytes| total.checked_add(*bytes))
    }
}

fn wanted(function: &Function, capacity: Capacity) -> bool {
    capacity.taps || !function.name.ends_with(".taps")
}

fn largest(function: &Function) -> u32 {
    function.classes.last().copied().unwrap_or_default()
}

/// A buffer that stands for `port` in any of the functions.
fn port<'p>(mut functions: impl Iterator<Item = &'p Function>, port: Port) -> Option<&'p Buffer> {
    functions.find_map(|function| {
        let mut buffers = function.buffers.iter().map(|(_, buffer)| buffer);
        buffers.find(|buffer| buffer.place == Place::Port { port })
    })
}

/// Values of one counted row.
fn elements(buffer: &Buffer) -> Option<u64> {
    buffer.row_dims.iter().try_fold(1, |product: u64, dim| product.checked_mul(*dim))
}

fn control(max_tokens: u32, max_outputs: u32, pages: u32) -> Option<ControlLayout> {
    let words_aligned = (ALIGNMENT / 4) as usize;
    let mut next = words_aligned;
    let mut take = |words: u32, each: usize| {
        let start = next;
        let bytes = (words as usize).checked_mul(each)?;
        next = next.checked_add(bytes)?.checked_next_multiple_of(words_aligned)?;
        Some(start)
    };
    let ids = take(max_tokens, 1)?;
    let rows = take(max_tokens, 2)?;
    let image_rows = take(max_tokens, 1)?;
    let output_rows = take(max_outputs, 1)?;
    let draws = take(max_outputs, Draw::WORDS)?;
    let page_table = take(pages, 1)?;
    Some(ControlLayout { ids, rows, image_rows, output_rows, draws, page_table, words: next })
}

impl ControlLayout {
    /// Word at which an array starts.
    #[must_use]
    pub fn start(&self, field: ControlField) -> usize {
        match field {
            ControlField::Ids => self.ids,
            ControlField::Rows => self.rows,
            ControlField::ImageRows => self.image_rows,
            ControlField::OutputRows => self.output_rows,
            ControlField::Draws => self.draws,
            ControlField::PageTable => self.page_table,
        }
    }
}

fn taps<'p>(functions: impl Iterator<Item = &'p Function>) -> Option<Vec<(String, u64)>> {
    let mut taps: Vec<(String, u64)> = Vec::new();
    for function in functions {
        for (_, buffer) in function.buffers.iter() {
            let Place::Tap { name } = &buffer.place else { continue };
            let bytes = buffer.bytes.at(largest(function))?;
            match taps.iter_mut().find(|(tap, _)| tap == name) {
                Some((_, most)) => *most = bytes.max(*most),
                None => taps.push((name.clone(), bytes)),
            }
        }
    }
    Some(taps)
}

/// Most bytes of counters of a step.
fn counters(function: &Function) -> Option<u64> {
    let buffers = function.buffers.iter().filter(|(_, buffer)| buffer.place == Place::Counters);
    let mut bytes = buffers.map(|(_, buffer)| buffer.bytes.at(largest(function)));
    bytes.try_fold(0, |most: u64, bytes| Some(most.max(bytes?)))
}

fn choices<'p>(functions: impl Iterator<Item = &'p Function>) -> Option<Vec<(u32, u64)>> {
    let mut choices = BTreeMap::new();
    for function in functions {
        for (_, buffer) in function.buffers.iter() {
            let Place::Choice { layer, .. } = buffer.place else { continue };
            let bytes = buffer.bytes.at(largest(function))?;
            let most: &mut u64 = choices.entry(layer).or_default();
            *most = bytes.max(*most);
        }
    }
    Some(choices.into_iter().collect())
}
