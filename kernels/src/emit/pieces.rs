//! Rows walked vector by vector, the last piece of a row being as long as what is left.

use super::{Bf16, Builder, Carried, Element, F32, Index, Ptr};

/// A whole vector of a row, or the part of one at its end.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'c> {
    /// Index of its first element in the row.
    pub at: Index<'c>,
    /// Elements of a part; `None` for a whole vector.
    pub count: Option<u64>,
    pub width: u32,
}

impl<'c> Builder<'c> {
    /// Run `body` for each piece of a row of `length` elements; it is written once for whole
    /// vectors and once for the part at the end, where there is one.
    pub fn for_each_piece(&mut self, length: u64, mut body: impl FnMut(&mut Self, Piece<'c>)) {
        self.fold_pieces(length, (), |k, piece, ()| body(k, piece));
    }

    /// As [`Self::for_each_piece`], with values handed from piece to piece. Lanes of a part beyond
    /// its count read as zeros.
    pub fn fold_pieces<T: Carried<'c>>(
        &mut self,
        length: u64,
        first: T,
        mut body: impl FnMut(&mut Self, Piece<'c>, T) -> T,
    ) -> T {
        let width = self.lanes();
        let even = length - length % u64::from(width);
        let (zero, end) = (self.index(0), self.index(even));
        let mut carried = first;
        if even > 0 {
            carried = self.fold(zero, end, width.into(), carried, |k, at, carried| {
                body(k, Piece { at, count: None, width }, carried)
            });
        }
        if even < length {
            let part = Piece { at: end, count: Some(length - even), width };
            carried = body(self, part, carried);
        }
        carried
    }

    /// The elements of `piece` of the row at `row`.
    pub fn read<T: Element<'c>>(&mut self, row: Ptr<'c>, piece: Piece<'c>) -> T {
        let place = self.at::<T>(row, piece.at);
        match piece.count {
            None if self.is_gpu() => self.load_whole::<T>(place, piece.width),
            None => self.load::<T>(place, piece.width),
            Some(count) => {
                let count = self.index(count);
                self.load_partial::<T>(place, piece.width, count)
            }
        }
    }

    /// Store the elements of `piece` of the row at `row`.
    pub fn write<T: Element<'c>>(&mut self, row: Ptr<'c>, piece: Piece<'c>, value: T) {
        let place = self.at::<T>(row, piece.at);
        match piece.count {
            None if self.is_gpu() => self.store_whole(place, value),
            None => self.store(place, value),
            Some(count) => {
                let count = self.index(count);
                self.store_partial(place, value, count);
            }
        }
    }

    /// bf16 elements as f32.
    pub fn read_widened(&mut self, row: Ptr<'c>, piece: Piece<'c>) -> F32<'c> {
        let narrow = self.read::<Bf16>(row, piece);
        self.widen(narrow)
    }

    /// Round to bf16 and store.
    pub fn write_rounded(&mut self, row: Ptr<'c>, piece: Piece<'c>, value: F32<'c>) {
        let narrow = self.round(value);
        self.write(row, piece, narrow);
    }

    /// `value` in the lanes that `piece` has, `other` in those beyond its end.
    pub fn within(&mut self, piece: Piece<'c>, value: F32<'c>, other: F32<'c>) -> F32<'c> {
        match piece.count {
            None => value,
            Some(count) => {
                let count = self.index(count);
                let inside = self.first(count, piece.width);
                self.select(inside, value, other)
            }
        }
    }
}
