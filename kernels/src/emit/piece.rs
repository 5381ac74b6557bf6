//! A row cut into vectors: the same words for a whole vector and for what is left at the end.

use super::{Bf16, Builder, Carried, Element, F32, Index, Ptr};

/// One vector's worth of a row.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'c> {
    /// Index in the row of the first value.
    pub at: Index<'c>,
    /// How many values there are; `None` for a whole vector.
    count: Option<Index<'c>>,
    lanes: u32,
}

impl<'c> Piece<'c> {
    /// bf16 values of the row at `row`, as f32; zeros in lanes beyond its end.
    pub fn load_widened(&self, k: &mut Builder<'c>, row: Ptr<'c>) -> F32<'c> {
        let narrow = self.load::<Bf16>(k, row);
        k.widen(narrow)
    }

    /// Round to bf16 and store into the row at `row`.
    pub fn store_rounded(&self, k: &mut Builder<'c>, row: Ptr<'c>, value: F32<'c>) {
        let narrow = k.round(value);
        self.store(k, row, narrow);
    }

    /// Values of the row at `row`; zeros in lanes beyond its end.
    pub fn load<T: Element<'c>>(&self, k: &mut Builder<'c>, row: Ptr<'c>) -> T {
        let from = k.at::<T>(row, self.at);
        match self.count {
            None => k.load(from, self.lanes),
            Some(count) => k.load_partial(from, self.lanes, count),
        }
    }

    /// Store into the row at `row`; lanes beyond its end are dropped.
    pub fn store<T: Element<'c>>(&self, k: &mut Builder<'c>, row: Ptr<'c>, value: T) {
        let to = k.at::<T>(row, self.at);
        match self.count {
            None => k.store(to, value),
            Some(count) => k.store_partial(to, value, count),
        }
    }

    /// `value` in the lanes that hold values of the row, `other` in those beyond its end.
    pub fn only(&self, k: &mut Builder<'c>, value: F32<'c>, other: F32<'c>) -> F32<'c> {
        match self.count {
            None => value,
            Some(count) => {
                let inside = k.first(count, self.lanes);
                k.select(inside, value, other)
            }
        }
    }
}

impl<'c> Builder<'c> {
    /// `body` for each piece of a row of `length` values.
    pub fn for_each_piece(&mut self, length: u64, body: impl Fn(&mut Self, Piece<'c>)) {
        self.fold_pieces(length, (), |k, piece, ()| body(k, piece));
    }

    /// As [`Self::for_each_piece`], with values handed from piece to piece.
    pub fn fold_pieces<T: Carried<'c>>(
        &mut self,
        length: u64,
        first: T,
        body: impl Fn(&mut Self, Piece<'c>, T) -> T,
    ) -> T {
        let lanes = self.lanes();
        let left = length % u64::from(lanes);
        let (zero, even) = (self.index(0), self.index(length - left));
        let mut carried = first;
        if left < length {
            carried = self.fold(zero, even, u64::from(lanes), carried, |k, at, carried| {
                body(k, Piece { at, count: None, lanes }, carried)
            });
        }
        if left > 0 {
            let count = Some(self.index(left));
            carried = body(self, Piece { at: even, count, lanes }, carried);
        }
        carried
    }
}
