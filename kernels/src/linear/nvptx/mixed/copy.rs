//! How the steps of a tile are brought in, by one thread that asks the copying hardware for them.

use super::super::ring::{Ring, Stage};
use super::super::{Sizes, behind};
use super::{Mixed, WEIGHT_STEP, WORDS};
use crate::emit::{Builder, I32, Index, Ptr};
use crate::packing::rows::RUN;

/// A weight, or several one after the other, with the words of its groups, where it has some.
pub(crate) struct Weight<'c, 'a> {
    shape: Mixed,
    sizes: &'a Sizes,
    map: Ptr<'c>,
    words: Ptr<'c>,
}

/// A step of a tile's rows of a weight.
#[derive(Clone, Copy)]
pub(crate) struct Part<'c> {
    step: Index<'c>,
    first: Index<'c>,
    /// Column and row of the map.
    at: [I32<'c>; 2],
}

impl<'c, 'a> Weight<'c, 'a> {
    /// That of tensor map `map`, which begins at `place`.
    pub fn new(
        k: &mut Builder<'c>,
        (shape, sizes): (Mixed, &'a Sizes),
        map: usize,
        place: Ptr<'c>,
    ) -> Self {
        let words = behind(k, sizes, place);
        Self { shape, sizes, map: k.tensor_map(map), words }
    }

    /// Bytes that come for a step.
    pub fn step_bytes(&self) -> u64 {
        self.shape.step_bytes() - self.shape.right_bytes()
    }

    /// Step `step` of the rows from `first` on.
    pub fn part(&self, k: &mut Builder<'c>, step: Index<'c>, first: Index<'c>) -> Part<'c> {
        let column = k.mul_constant(step, WEIGHT_STEP);
        Part { step, first, at: [column, first].map(|at| k.i32_of(at)) }
    }

    /// Have a part brought to its place in `stage`, which expects it.
    pub fn ask(&self, k: &mut Builder<'c>, part: Part<'c>, stage: Stage<'c>) {
        let to = k.at_bytes_constant(stage.place, self.shape.right_bytes());
        k.copy_box_in(to, self.map, part.at, stage.full);
        if self.shape.runs() > 0 {
            let to = k.at_bytes_constant(stage.place, self.shape.words());
            self.ask_words(k, part, (to, stage.full));
        }
    }

    /// The words of a part's group of each run; of runs that there are not, those of the last one.
    fn ask_words(&self, k: &mut Builder<'c>, part: Part<'c>, (to, full): (Ptr<'c>, Ptr<'c>)) {
        let pitch = u64::from(RUN) * self.sizes.scheme.bytes_behind(self.sizes.k.into());
        let first = k.div_constant(part.first, RUN.into());
        let last = k.index(self.sizes.packed_rows() / u64::from(RUN) - 1);
        let skipped = k.mul_constant(part.step, WORDS);
        let group = k.at_bytes(self.words, skipped);
        for run in 0..u64::from(self.shape.runs()) {
            let at = k.add_constant(first, run);
            let at = k.min(at, last);
            let start = k.mul_constant(at, pitch);
            let from = k.at_bytes(group, start);
            let to = k.at_bytes_constant(to, WORDS * run);
            let bytes = k.i32(WORDS as i32);
            k.copy_run_in(to, from, bytes, full);
        }
    }
}

/// Have every step of the rows of x from `row` on, of tensor map 0, and of those of `weight` from `first`
/// on brought in as soon as its stage is empty.
pub(super) fn tile<'c>(
    k: &mut Builder<'c>,
    ring: Ring<'c>,
    (before, steps): (Index<'c>, u64),
    (row, weight, first): (Index<'c>, &Weight<'c, '_>, Index<'c>),
) {
    let x = k.tensor_map(0);
    let row = k.i32_of(row);
    let width = u64::from(k.shape().tensor_maps[0].block[0]);
    let (zero, end) = (k.index(0), k.index(steps));
    k.for_each(zero, end, 1, |k, step| {
        let at = k.add(before, step);
        let stage = ring.empty(k, at);
        k.arrive_expecting(stage.full, weight.shape.step_bytes() as u32);
        let column = k.mul_constant(step, width);
        let column = k.i32_of(column);
        let part = weight.part(k, step, first);
        k.copy_box_in(stage.place, x, [column, row], stage.full);
        weight.ask(k, part, stage);
    });
}
