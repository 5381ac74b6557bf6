//! What follows the sums: they are laid out in shared memory as f32, then threads take groups of
//! eight neighbouring outputs of a row, so that all they read and write is whole and side by side.

use crate::emit::gpu::piece_width;
use crate::emit::{Bf16, Builder, F32, Index, Ptr};
use crate::linear::{Activation, Epilogue};

/// Outputs that a thread finishes at once: what gate and up alternate by.
pub const GROUP: u64 = 8;

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Each sum is an output.
    Each(Epilogue),
    /// `silu(gate) · up`; groups of gate and up sums alternate.
    Gated,
}

impl Finish {
    /// Sums for an output.
    #[must_use]
    pub const fn sums(self) -> u32 {
        match self {
            Self::Each(_) => 1,
            Self::Gated => 2,
        }
    }
}

/// Sums of some rows by some weight rows (a multiple of 32) as f32 in shared memory, the groups of a
/// row swapped by its number so that stores of neighbouring rows meet different banks.
#[derive(Clone, Copy)]
pub struct Staged<'c> {
    pub place: Ptr<'c>,
    pub columns: u32,
}

impl<'c> Staged<'c> {
    fn group(&self, k: &mut Builder<'c>, row: Index<'c>, group: Index<'c>) -> Ptr<'c> {
        let turn = k.rem_constant(row, 4);
        let group = k.xor(group, turn);
        let (row, group) =
            (k.mul_constant(row, u64::from(self.columns)), k.mul_constant(group, GROUP));
        let at = k.add(row, group);
        k.at::<F32>(self.place, at)
    }

    /// Where sums are that were put.
    pub fn at(&self, k: &mut Builder<'c>, part: GroupPart<'c>) -> Ptr<'c> {
        let place = self.group(k, part.row, part.group);
        k.at_bytes_constant(place, 4 * part.first)
    }

    /// Sums that were put.
    pub fn get(&self, k: &mut Builder<'c>, part: GroupPart<'c>) -> F32<'c> {
        let place = self.at(k, part);
        k.load_whole::<F32>(place, part.width)
    }

    /// Put the sums of two neighbouring columns, the first even.
    pub fn put(&self, k: &mut Builder<'c>, [row, column]: [Index<'c>; 2], pair: [F32<'c>; 2]) {
        let group = k.div_constant(column, GROUP);
        let within = k.rem_constant(column, GROUP);
        let group = self.group(k, row, group);
        let place = k.at::<F32>(group, within);
        let pair = k.vector_of(&pair);
        k.store_whole(place, pair);
    }
}

/// The pointers that sums are finished with.
#[derive(Clone, Copy)]
pub struct Pointers<'c> {
    pub bias: Option<Ptr<'c>>,
    pub residual: Option<Ptr<'c>>,
    pub y: Ptr<'c>,
}

/// What outputs are finished with, read.
#[derive(Clone, Copy)]
pub struct Beside<'c> {
    pub bias: Option<Bf16<'c>>,
    pub residual: Option<Bf16<'c>>,
}

/// The outputs that a block finishes: `rows` staged rows, row `i` being row `first_row + i` of y, and
/// outputs from `first` on of the `n` of a row.
#[derive(Clone, Copy)]
pub struct Outputs<'c> {
    pub rows: Index<'c>,
    pub first_row: Index<'c>,
    pub first: Index<'c>,
    pub n: u32,
    /// Most outputs of a row that are finished side by side, a power of two: each has its sums in
    /// registers.
    pub most: u32,
}

/// Where the sums of a group are read: row and group among those of the block, first of the group's
/// sums, and how many.
#[derive(Clone, Copy)]
pub struct GroupPart<'c> {
    pub row: Index<'c>,
    pub group: Index<'c>,
    pub first: u64,
    pub width: u32,
}

impl<'c> GroupPart<'c> {
    /// Its first sum among those of the block's row.
    pub fn column(self, k: &mut Builder<'c>) -> Index<'c> {
        let group = k.mul_constant(self.group, GROUP);
        k.add_constant(group, self.first)
    }
}

impl Finish {
    /// Finish and store the outputs of `columns` sums of each row, which `sums` reads.
    ///
    /// All threads of the block come here after a barrier.
    pub fn store<'c>(
        self,
        k: &mut Builder<'c>,
        columns: u32,
        outputs: Outputs<'c>,
        pointers: &Pointers<'c>,
        sums: impl Fn(&mut Builder<'c>, GroupPart<'c>) -> F32<'c>,
    ) {
        let team = k.threads();
        let groups = u64::from(columns / self.sums()) / GROUP;
        let (thread, end) = (k.thread(), k.mul_constant(outputs.rows, groups));
        let width = piece_width(u64::from(outputs.n)).min(outputs.most);
        k.for_each(thread, end, team.into(), |k, at| {
            let (row, group) = (k.div_constant(at, groups), k.rem_constant(at, groups));
            let parts: Vec<_> = match self {
                Self::Each(_) => vec![group],
                Self::Gated => {
                    let gate = k.mul_constant(group, 2);
                    vec![gate, k.add_constant(gate, 1)]
                }
            };
            let of_y = k.add(row, outputs.first_row);
            let group = k.mul_constant(group, GROUP);
            let column = k.add(group, outputs.first);
            let start = k.mul_constant(of_y, u64::from(outputs.n));
            for first in (0..GROUP).step_by(width as usize) {
                let column = k.add_constant(column, first);
                let n = k.index(outputs.n.into());
                let inside = k.less(column, n);
                k.when(inside, |k| {
                    let part = |group| GroupPart { row, group, first, width };
                    let sums: Vec<_> = parts.iter().map(|group| sums(k, part(*group))).collect();
                    let at = k.add(start, column);
                    let beside = self.beside(k, ([column, at], width), pointers);
                    let value = self.value(k, &sums, beside);
                    let place = k.at::<Bf16>(pointers.y, at);
                    let value = k.round(value);
                    k.store_whole(place, value);
                });
            }
        });
    }

    /// What `width` outputs are finished with, at `column` of their row and at `at` of the matrix.
    pub fn beside<'c>(
        self,
        k: &mut Builder<'c>,
        ([column, at], width): ([Index<'c>; 2], u32),
        pointers: &Pointers<'c>,
    ) -> Beside<'c> {
        let Self::Each(_) = self else { return Beside { bias: None, residual: None } };
        let mut load = |pointer: Option<Ptr<'c>>, at| {
            let place = k.at::<Bf16>(pointer?, at);
            Some(k.load_whole::<Bf16>(place, width))
        };
        Beside { bias: load(pointers.bias, column), residual: load(pointers.residual, at) }
    }

    /// The outputs of `sums`.
    pub fn value<'c>(self, k: &mut Builder<'c>, sums: &[F32<'c>], beside: Beside<'c>) -> F32<'c> {
        let Self::Each(Epilogue { activation, .. }) = self else {
            let gated = k.silu_approx(sums[0]);
            return k.mul(gated, sums[1]);
        };
        let mut value = sums[0];
        if let Some(bias) = beside.bias {
            let bias = k.widen(bias);
            value = k.add(value, bias);
        }
        if activation == Activation::Gelu {
            value = k.gelu(value);
        }
        if let Some(residual) = beside.residual {
            let residual = k.widen(residual);
            value = k.add(value, residual);
        }
        value
    }
}
