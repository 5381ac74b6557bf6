//! The blocked product at the heart of every product family: packed rows times one weight panel.
//!
//! A panel is two vectors wide. Up to `most_rows` rows are multiplied at once with all sums in
//! registers; each step of K loads the panel's next vectors, in strictly ascending order, and the
//! values of each row that meet them. The sum of one output runs over K in order, whatever rows
//! stand beside it. How rows and panels lie in memory, and what one step is, follows from the
//! scheme: [`bf16`], [`int8`], [`int8_weight`], [`int4`].

use sail_ir::plan::Arithmetic;
use sail_ir::scheme::Scheme;
use sail_ir::target::{Limits, Target};

use super::inner::{bf16, int4, int8, int8_weight};
use crate::config::{Config, Operand, Parameter};
use crate::emit::{Bf16, Block, Bool, Builder, F32, I32, Index, Piece, Ptr};

/// Fewest rows whose multiplication takes longer than their panel takes to come from memory.
const FORESEEING_ROWS: u32 = 8;

/// Bytes of the first word of a workspace, which is 0 in a thread's first call for a step.
const BLOCK_BYTES: u64 = 4;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// A product of rows of `k` values with panels, on one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    pub k: u32,
    pub scheme: Scheme,
    pub lanes: u32,
    /// Rows multiplied at once.
    pub most_rows: u32,
    /// Whether packed rows take twice the room: the target lacks the instruction that multiplies
    /// their values as they are.
    pub widened: bool,
    /// Fewest rows multiplied at once for which the next panel is brought near.
    pub foreseeing_rows: u32,
}

/// The thread's own memory for one product.
#[derive(Debug, Clone, Copy)]
pub struct Workspace<'c> {
    /// The number of the block whose rows are packed, and one; 0 for none.
    block: Ptr<'c>,
    /// Packed rows, [`Product::row_stride`] apart.
    rows: Ptr<'c>,
    /// One row of bf16 values before they are quantized.
    staged: Ptr<'c>,
    /// The sums of one step, f32.
    tile: Ptr<'c>,
    /// A panel that is read by many rows, as they read it fastest.
    unpacked: Ptr<'c>,
}

/// A row that is being packed.
#[derive(Debug, Clone, Copy)]
pub struct OpenRow<'c> {
    /// Where the values go, through [`Product::put`].
    pub at: Ptr<'c>,
    packed: Ptr<'c>,
}

/// A few neighbouring packed rows and the panel they meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'c> {
    pub rows: u32,
    /// First of the rows.
    pub begin: Ptr<'c>,
    pub panel: Ptr<'c>,
    /// The panel as bf16 pairs, where it was unpacked.
    pub unpacked: Option<Ptr<'c>>,
}

impl Product {
    #[must_use]
    pub fn new(k: u32, scheme: Scheme, target: &Target) -> Self {
        let Limits { lanes, .. } = target.limits();
        let (most_rows, widened) = match scheme {
            // `fp8` is of GPUs alone, for which this shape does not matter.
            Scheme::Bf16 | Scheme::Int8Weight | Scheme::Fp8 => bf16::shape(target),
            Scheme::Int8 => int8::shape(target),
            Scheme::Int4 => int4::shape(target),
        };
        Self { k, scheme, lanes, most_rows, widened, foreseeing_rows: FORESEEING_ROWS }
    }

    /// What can be chosen about it, as the rule has shaped it: `rows`, of which the rule takes as many
    /// as registers have room for, and `foresee`.
    #[must_use]
    pub fn space(&self) -> [Parameter; 2] {
        [
            Parameter::new("rows", self.most_rows, |rows| rows <= self.most_rows),
            Parameter::new("foresee", self.foreseeing_rows, |_| true),
        ]
    }

    /// A packed weight of so many panels.
    #[must_use]
    pub fn weight(&self, panels: u64) -> Operand {
        Operand::Panels { scheme: self.scheme, count: panels, k: self.k }
    }

    /// The same with these values.
    #[must_use]
    pub fn with(self, config: &Config) -> Self {
        let (most_rows, foreseeing_rows) = (config.get("rows"), config.get("foresee"));
        Self { most_rows, foreseeing_rows, ..self }
    }

    /// What values are multiplied in.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        if self.scheme.quantizes_activations() { Arithmetic::Bytes } else { Arithmetic::Floats }
    }

    /// Bytes from one packed row to the next: an odd number of cache lines, so that the same
    /// column of many rows does not fall into one set of the cache.
    #[must_use]
    pub fn row_stride(&self) -> u64 {
        let bytes = match self.scheme {
            Scheme::Bf16 | Scheme::Int8Weight | Scheme::Fp8 => bf16::row_bytes(self),
            Scheme::Int8 => int8::row_bytes(self),
            Scheme::Int4 => int4::row_bytes(self),
        };
        let lines = bytes.div_ceil(64);
        64 * (lines + u64::from(lines.is_multiple_of(2)))
    }

    /// Bytes of a packed panel.
    #[must_use]
    pub fn panel_bytes(&self) -> u64 {
        self.scheme.packed_bytes(self.panel_width(), self.k.into(), self.panel_width())
    }

    /// Outputs of a panel.
    #[must_use]
    pub fn panel_width(&self) -> u64 {
        2 * u64::from(self.lanes)
    }

    /// Bytes of one vector.
    #[must_use]
    pub fn vector_bytes(&self) -> u64 {
        4 * u64::from(self.lanes)
    }

    /// Bytes of workspace for `rows` packed rows and all else that a product needs.
    #[must_use]
    pub fn workspace_bytes(&self, rows: u64) -> u64 {
        let parts = [
            BLOCK_BYTES,
            rows * self.row_stride(),
            self.staged_bytes(),
            self.tile_bytes(),
            self.unpacked_bytes(),
        ];
        parts.into_iter().map(|bytes| bytes.next_multiple_of(64)).sum()
    }

    fn tile_bytes(&self) -> u64 {
        u64::from(self.most_rows) * self.panel_width() * 4
    }

    fn staged_bytes(&self) -> u64 {
        match self.scheme {
            Scheme::Bf16 | Scheme::Int8Weight | Scheme::Fp8 => 0,
            Scheme::Int8 | Scheme::Int4 => 2 * u64::from(self.k.next_multiple_of(self.lanes)),
        }
    }

    fn unpacked_bytes(&self) -> u64 {
        if self.scheme == Scheme::Int8Weight { int8_weight::unpacked_bytes(self) } else { 0 }
    }

    /// Take the workspace for `rows` packed rows.
    pub fn carve<'c>(&self, k: &mut Builder<'c>, rows: u64) -> Workspace<'c> {
        Workspace {
            block: k.carve(BLOCK_BYTES),
            rows: k.carve(rows * self.row_stride()),
            staged: k.carve(self.staged_bytes()),
            tile: k.carve(self.tile_bytes()),
            unpacked: k.carve(self.unpacked_bytes()),
        }
    }

    /// How many rows of a block are to be packed: none when they are there since an earlier call for the
    /// same step. A row takes as long as one to three panels, and a thread that shares a step with
    /// others takes it in several calls.
    pub fn rows_to_pack<'c>(
        &self,
        k: &mut Builder<'c>,
        workspace: Workspace<'c>,
        block: &Block<'c>,
    ) -> Index<'c> {
        let (number, one) = (k.i32_of(block.index), k.i32(1));
        let number = k.add(number, one);
        let packed = k.load::<I32>(workspace.block, 1);
        let same = k.equal(packed, number);
        k.store(workspace.block, number);
        let zero = k.index(0);
        k.select(same, zero, block.rows)
    }

    /// Pack row number `row`: `fill` puts its values where it is told.
    pub fn pack_row<'c>(
        &self,
        k: &mut Builder<'c>,
        workspace: Workspace<'c>,
        row: Index<'c>,
        fill: impl FnOnce(&mut Builder<'c>, OpenRow<'c>),
    ) {
        let packed = self.row(k, workspace, row);
        match self.scheme {
            Scheme::Bf16 | Scheme::Int8Weight | Scheme::Fp8 => {
                bf16::pad_row(k, self, packed);
                fill(k, OpenRow { at: packed, packed });
            }
            Scheme::Int8 | Scheme::Int4 => {
                fill(k, OpenRow { at: workspace.staged, packed });
                self.quantize_row(k, workspace.staged, packed);
            }
        }
    }

    fn quantize_row<'c>(&self, k: &mut Builder<'c>, staged: Ptr<'c>, packed: Ptr<'c>) {
        match self.scheme {
            Scheme::Int8 => int8::quantize_row(k, self, staged, packed),
            Scheme::Int4 => int4::quantize_row(k, self, staged, packed),
            Scheme::Bf16 | Scheme::Int8Weight | Scheme::Fp8 => {
                unreachable!("bf16 rows are packed as they are")
            }
        }
    }

    /// Where packed row `row` begins.
    fn row<'c>(&self, k: &mut Builder<'c>, workspace: Workspace<'c>, row: Index<'c>) -> Ptr<'c> {
        let offset = k.mul_constant(row, self.row_stride());
        k.at_bytes(workspace.rows, offset)
    }

    /// The part of an open row that begins at value `column`.
    pub fn column<'c>(
        &self,
        k: &mut Builder<'c>,
        row: OpenRow<'c>,
        column: Index<'c>,
    ) -> OpenRow<'c> {
        let offset = k.mul_constant(column, if self.puts_wide() { 4 } else { 2 });
        OpenRow { at: k.at_bytes(row.at, offset), packed: row.packed }
    }

    /// Put values into an open row, or a part of one, at `piece`.
    pub fn put<'c>(
        &self,
        k: &mut Builder<'c>,
        row: OpenRow<'c>,
        piece: Piece<'c>,
        values: Bf16<'c>,
    ) {
        if self.puts_wide() {
            let values = k.widen(values);
            k.write(row.at, piece, values);
        } else {
            k.write(row.at, piece, values);
        }
    }

    fn puts_wide(&self) -> bool {
        self.widened && !self.scheme.quantizes_activations()
    }

    /// Multiply the first `count` packed rows with the panel at `panel`; `finish` gets each row's
    /// number and its sums.
    pub fn panel<'c>(
        &self,
        k: &mut Builder<'c>,
        (workspace, count): (Workspace<'c>, Index<'c>),
        panel: Ptr<'c>,
        finish: impl FnOnce(&mut Builder<'c>, Index<'c>, [F32<'c>; 2]),
    ) {
        let zero = k.index(0);
        let many = self.many_rows(k, count);
        if let Some(many) = many {
            k.when(many, |k| int8_weight::unpack(k, self, panel, workspace.unpacked));
        }
        k.while_below(zero, count, |k, first| {
            let left = k.sub(count, first);
            let begin = self.row(k, workspace, first);
            let step = Step { rows: self.most_rows, begin, panel, unpacked: None };
            let done = match many {
                None => self.whole_steps(k, step, left, workspace.tile),
                Some(many) => {
                    let unpacked = Step { unpacked: Some(workspace.unpacked), ..step };
                    let direct = Step { rows: int8_weight::most_direct_rows(self), ..step };
                    k.choose(
                        many,
                        |k| self.whole_steps(k, unpacked, left, workspace.tile),
                        |k| self.whole_steps(k, direct, left, workspace.tile),
                    )
                }
            };
            let end = k.add(first, done);
            k.for_each(first, end, 1, |k, row| {
                let at = k.sub(row, first);
                let sums = self.load_sums(k, workspace.tile, at);
                finish(k, row, sums);
            });
            end
        });
    }

    /// Whether `count` rows are so many that a panel is unpacked for them, where a scheme has both
    /// ways.
    fn many_rows<'c>(&self, k: &mut Builder<'c>, count: Index<'c>) -> Option<Bool<'c>> {
        (self.scheme == Scheme::Int8Weight).then(|| {
            let few = k.index(int8_weight::most_direct_rows(self).into());
            k.less(few, count)
        })
    }

    /// Multiply the rows of `step`, or fewer when `left` are: the loop over rows goes by whole steps,
    /// and what is left over is cut into powers of two. Gives the number of rows.
    fn whole_steps<'c>(
        &self,
        k: &mut Builder<'c>,
        step: Step<'c>,
        left: Index<'c>,
        tile: Ptr<'c>,
    ) -> Index<'c> {
        let whole = |k: &mut Builder<'c>| {
            self.step(k, step, tile);
            k.index(step.rows.into())
        };
        let Some(rows) = [8, 4, 2, 1].into_iter().find(|size| *size < step.rows) else {
            return whole(k);
        };
        let needed = k.index(step.rows.into());
        let fits = k.less_equal(needed, left);
        k.choose(fits, whole, |k| self.whole_steps(k, Step { rows, ..step }, left, tile))
    }

    /// The sums of a few rows with the panel, left in `tile`.
    fn step<'c>(&self, k: &mut Builder<'c>, step: Step<'c>, tile: Ptr<'c>) {
        let sums = match self.scheme {
            Scheme::Bf16 => bf16::sums(k, self, step),
            Scheme::Int8 => int8::sums(k, self, step),
            Scheme::Int8Weight => int8_weight::sums(k, self, step),
            Scheme::Int4 => int4::sums(k, self, step),
            Scheme::Fp8 => panic!("no x86-64 target has `fp8`"),
        };
        for (row, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let vector = (2 * row + half) as u64;
                let place = k.at_bytes_constant(tile, vector * self.vector_bytes());
                k.store(place, sum);
            }
        }
    }

    /// Have the next panel's `vectors` that lie where those at `place` lie in this one brought near.
    pub(super) fn foresee<'c>(&self, k: &mut Builder<'c>, place: Ptr<'c>, vectors: u64) {
        let next = k.at_bytes_constant(place, self.panel_bytes());
        for line in (0..vectors * self.vector_bytes()).step_by(LINE_BYTES) {
            let line = k.at_bytes_constant(next, line);
            k.prefetch(line);
        }
    }

    fn load_sums<'c>(&self, k: &mut Builder<'c>, tile: Ptr<'c>, row: Index<'c>) -> [F32<'c>; 2] {
        let offset = k.mul_constant(row, self.panel_width() * 4);
        let first = k.at_bytes(tile, offset);
        let second = k.at_bytes_constant(first, self.vector_bytes());
        [k.load::<F32>(first, self.lanes), k.load::<F32>(second, self.lanes)]
    }
}

impl<'c> Step<'c> {
    /// Where the panel's bf16 pairs begin.
    pub(super) fn pairs(&self) -> Ptr<'c> {
        self.unpacked.unwrap_or(self.panel)
    }

    /// Have the next panel's `vectors` that lie where those at `place` lie in this one brought near,
    /// when the rows are many.
    ///
    /// A processor foresees a stream within a page of memory only, so every page of a panel that
    /// comes from memory is waited for. Where rows are few, waiting for memory is all there is, and
    /// more instructions make it longer.
    pub(super) fn foresee(
        &self,
        k: &mut Builder<'c>,
        product: &Product,
        place: Ptr<'c>,
        vectors: u64,
    ) {
        if self.rows < product.foreseeing_rows || self.unpacked.is_some() {
            return;
        }
        product.foresee(k, place, vectors);
    }

    /// The address `offset` bytes into each of the rows, of which `stride` are between two.
    pub(super) fn each_row(
        &self,
        k: &mut Builder<'c>,
        product: &Product,
        offset: Index<'c>,
    ) -> Vec<Ptr<'c>> {
        let column = k.at_bytes(self.begin, offset);
        let strides = (0..u64::from(self.rows)).map(|row| row * product.row_stride());
        strides.map(|skip| k.at_bytes_constant(column, skip)).collect()
    }
}
