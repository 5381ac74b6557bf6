//! Rows as integers, before a product of many of them: what each block of the product would otherwise
//! do again for the same rows.

use sail_ir::plan::{Cost, Grid};
use sail_ir::scheme::Scheme;

use super::few::Rows as BlockRows;
use super::input::Input;
use super::measure::{AT_ONCE, Statistics};
use crate::emit::gpu::WARP;
use crate::emit::{Builder, F32, Index, Ptr};
use crate::kernel::{EmitError, Kernel, Rows, ThreadBlock};
use crate::linear::Prologue;

/// Rows of a block, a warp each.
const ROWS: u32 = 4;

/// Codes that a thread stores at once.
const CODES: u64 = 16;

/// `codes = quantized(prologue(x))`: `x` `[rows, k]` bf16 to rows of [`QuantizedRows::row_bytes`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantizeRows {
    pub rows: Rows,
    pub k: u32,
    /// `Direct` or `RmsNorm`.
    pub prologue: Prologue,
    /// What the codes are, see [`codes`].
    pub scheme: Scheme,
}

/// The scheme whose codes rows have that a weight of `scheme` meets: integers, or floats.
#[must_use]
pub fn codes(scheme: Scheme) -> Scheme {
    if scheme == Scheme::Fp8 { scheme } else { Scheme::Int8 }
}

/// Where the codes of rows of `k` values stand: signed bytes or floats of 8 bits, zeros up to a multiple of 64, then
/// what a step of the row is (f32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantizedRows {
    pub k: u32,
}

impl QuantizedRows {
    #[must_use]
    pub fn code_bytes(self) -> u64 {
        u64::from(self.k).next_multiple_of(64)
    }

    /// Bytes from one row to the next.
    #[must_use]
    pub fn row_bytes(self) -> u64 {
        self.code_bytes() + 64
    }

    /// The step of row `row`.
    pub fn step<'c>(self, k: &mut Builder<'c>, codes: Ptr<'c>, row: Index<'c>) -> F32<'c> {
        let place = self.row(k, codes, row);
        let place = k.at_bytes_constant(place, self.code_bytes());
        k.load::<F32>(place, 1)
    }

    pub fn row<'c>(self, k: &mut Builder<'c>, codes: Ptr<'c>, row: Index<'c>) -> Ptr<'c> {
        let start = k.mul_constant(row, self.row_bytes());
        k.at_bytes(codes, start)
    }
}

impl Kernel for QuantizeRows {
    fn family(&self) -> &'static str {
        "quantize_rows"
    }

    fn symbol(&self) -> String {
        let floats = if self.scheme == Scheme::Fp8 { ".fp8" } else { "" };
        let suffix = self.prologue.suffix();
        format!("quantize_rows.{}.k{}{suffix}{floats}", self.rows.name(), self.k)
    }

    fn arguments(&self) -> &'static [&'static str] {
        match self.prologue {
            Prologue::RmsNorm { .. } => &["x", "norm", "codes"],
            _ => &["x", "codes"],
        }
    }

    fn writes(&self) -> &'static [u32] {
        match self.prologue {
            Prologue::RmsNorm { .. } => &[2],
            _ => &[1],
        }
    }

    fn grid(&self) -> Grid {
        self.rows.grid(ROWS, 1)
    }

    fn workspace_bytes(&self) -> u64 {
        0
    }

    fn cost(&self) -> Cost {
        let width = u64::from(self.k);
        let row_bytes = 2 * width + QuantizedRows { k: self.k }.row_bytes();
        let weight_bytes = self.prologue.parameter_bytes(self.k);
        Cost { weight_bytes, row_bytes, row_operations: 3 * width, ..Cost::default() }
    }

    fn thread_block(&self) -> Option<ThreadBlock> {
        Some(ThreadBlock::of(ROWS * WARP).with_shared(Statistics::bytes(ROWS) as u32))
    }

    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError> {
        if matches!(self.prologue, Prologue::ShuffleLayerNorm { .. }) {
            return Err(EmitError::no_fit(self, "pixels are shuffled by a kernel of their own"));
        }
        self.write(k);
        Ok(())
    }
}

impl QuantizeRows {
    fn write<'c>(&self, k: &mut Builder<'c>) {
        let x = k.argument(0);
        let norm = (self.arguments().len() == 3).then(|| k.argument(1));
        let codes = k.argument(self.arguments().len() - 1);
        let input = Input { k: self.k, scheme: self.scheme, prologue: self.prologue };
        let layout = QuantizedRows { k: self.k };
        let statistics = Statistics::carve(k, ROWS);
        k.for_this_block(&self.grid(), |k, block| {
            let rows = BlockRows { x, first: block.first_row, count: block.rows, order: None };
            input.measure(k, rows, norm, statistics, (ROWS, AT_ONCE[0]));
            let warp = k.warp();
            let has = k.less(warp, block.rows);
            k.when(has, |k| {
                let place = input.open(k, rows, statistics, warp);
                let row = k.add(warp, block.first_row);
                let to = layout.row(k, codes, row);
                let lane = k.lane_id();
                let first = k.mul_constant(lane, CODES);
                let end = k.index(layout.code_bytes());
                let ragged = u64::from(self.k) != layout.code_bytes();
                k.for_each(first, end, CODES * u64::from(WARP), |k, code| {
                    let values = input.values(k, place.row, code, ragged);
                    let norm = norm.map(|norm| input.values(k, norm, code, ragged));
                    let words = input.operand(k, &place, &values, norm.as_ref());
                    let words = k.vector_of(&words);
                    let to = k.at_bytes(to, code);
                    k.store_whole(to, words);
                });
                let zero = k.index(0);
                let first = k.equal(lane, zero);
                k.when(first, |k| {
                    let step = statistics.step(k, warp);
                    let to = k.at_bytes_constant(to, layout.code_bytes());
                    k.store(to, step);
                });
            });
        });
    }
}
