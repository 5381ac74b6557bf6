//! Rows of x as the operands of matrix instructions, kept in shared memory: what is done to them on
//! the way is done once for all weight rows that a block multiplies.

use sail_ir::scheme::Scheme;

use super::few::Rows;
use super::input::Input;
use super::measure::Statistics;
use super::weight::{bytes_of_x, values_per_unit};
use crate::emit::{Builder, I32, Index, Ptr};

/// Bytes of a weight row that one access reads.
const UNIT: u64 = 16;

/// The operands of some rows, each row's in the order of the weight's units that they meet.
#[derive(Clone, Copy)]
pub struct Kept<'c> {
    input: Input,
    place: Ptr<'c>,
}

impl<'c> Kept<'c> {
    /// Bytes from one row to the next: accesses of neighbouring rows meet different banks.
    #[must_use]
    pub fn row_bytes(input: &Input) -> u64 {
        let pitch = input.scheme.row_bytes(input.k.into());
        match bytes_of_x(input.scheme) {
            1 => pitch + 4 * UNIT,
            more => more * pitch + UNIT,
        }
    }

    pub fn carve(k: &mut Builder<'c>, input: Input, rows: u32) -> Self {
        Self { input, place: k.shared(u64::from(rows) * Self::row_bytes(&input), 16) }
    }

    /// Keep the operands of `rows`, which were measured. All threads of the block come here; a barrier
    /// must follow.
    pub fn fill(
        &self,
        k: &mut Builder<'c>,
        rows: Rows<'c>,
        norm: Option<Ptr<'c>>,
        statistics: Statistics<'c>,
    ) {
        let Self { input, .. } = *self;
        let values_per_unit = values_per_unit(input.scheme);
        let units = input.scheme.row_bytes(input.k.into()) / UNIT;
        let ragged = units * values_per_unit != u64::from(input.k);
        let (thread, end) = (k.thread(), k.mul_constant(rows.count, units));
        let threads = k.threads().into();
        k.for_each(thread, end, threads, |k, at| {
            let (row, unit) = (k.div_constant(at, units), k.rem_constant(at, units));
            let place = input.open(k, rows, statistics, row);
            let element = k.mul_constant(unit, values_per_unit);
            let values = input.values(k, place.row, element, ragged);
            let norm = norm.map(|norm| input.values(k, norm, element, ragged));
            let words = input.operand(k, &place, &values, norm.as_ref());
            let to = self.at_row(k, row);
            let start = k.mul_constant(unit, UNIT * bytes_of_x(input.scheme));
            let mut to = k.at_bytes(to, start);
            for words in words.chunks_exact(4) {
                let words = k.vector_of(words);
                k.store_whole(to, words);
                to = k.at_bytes_constant(to, UNIT);
            }
        });
    }

    /// Where the operands of row `row` begin: of the last one where there are fewer.
    pub fn row(&self, k: &mut Builder<'c>, row: Index<'c>, count: Index<'c>) -> Ptr<'c> {
        let last = k.sub_constant(count, 1);
        let row = k.min(row, last);
        self.at_row(k, row)
    }

    fn at_row(&self, k: &mut Builder<'c>, row: Index<'c>) -> Ptr<'c> {
        let start = k.mul_constant(row, Self::row_bytes(&self.input));
        k.at_bytes(self.place, start)
    }

    /// The operands of the row at `row` that meet the unit at byte `byte` of a weight row.
    pub fn operands(
        k: &mut Builder<'c>,
        scheme: Scheme,
        row: Ptr<'c>,
        byte: Index<'c>,
    ) -> Vec<I32<'c>> {
        let start = k.mul_constant(byte, bytes_of_x(scheme));
        let place = k.at_bytes(row, start);
        let units = (0..bytes_of_x(scheme)).map(|at| {
            let place = k.at_bytes_constant(place, UNIT * at);
            k.load_whole::<I32>(place, 4)
        });
        let units: Vec<_> = units.collect();
        units.into_iter().flat_map(|unit| k.lanes_of(unit)).collect()
    }
}
