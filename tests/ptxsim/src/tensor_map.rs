//! Tensor maps: what `cuTensorMapEncodeTiled` makes of a matrix in global memory. The 128 bytes have a
//! layout of our own; kernels never look inside.

use crate::fault::{Fault, Kind};

/// How 16-byte pieces of rows are spread over banks of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    None,
    Bytes32,
    Bytes64,
    Bytes128,
}

impl Swizzle {
    /// Bytes of a row that the pattern covers.
    pub(crate) fn span(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes32 => Some(32),
            Self::Bytes64 => Some(64),
            Self::Bytes128 => Some(128),
        }
    }

    /// Where the byte that would be at shared address `at` is.
    pub(crate) fn place(self, at: u64) -> u64 {
        let rows = match self {
            Self::None => 0,
            Self::Bytes32 => 1,
            Self::Bytes64 => 3,
            Self::Bytes128 => 7,
        };
        at ^ (at >> 7 & rows) << 4
    }
}

/// A tensor of up to 5 dimensions, innermost first, and the box that one copy takes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of the first element, a multiple of 16.
    pub base: u64,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element: u32,
    /// Elements along each dimension.
    pub dims: Vec<u64>,
    /// Bytes between neighbours along each dimension but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of the box along each dimension, at most 256.
    pub box_dims: Vec<u32>,
    pub swizzle: Swizzle,
}

const MAGIC: u32 = 0x5a11_7e50;

impl TensorMap {
    /// A matrix of `[columns, rows]` at `base`, its rows `row_bytes` apart, swizzled in patterns of
    /// `swizzle` bytes (0 for none).
    ///
    /// # Panics
    ///
    /// When there is no such pattern.
    #[must_use]
    pub fn matrix(
        (base, element): (u64, u32),
        dims: [u64; 2],
        row_bytes: u64,
        block: [u32; 2],
        swizzle: u32,
    ) -> Self {
        let swizzle = match swizzle {
            0 => Swizzle::None,
            32 => Swizzle::Bytes32,
            64 => Swizzle::Bytes64,
            128 => Swizzle::Bytes128,
            bytes => panic!("no pattern has {bytes} bytes"),
        };
        let (dims, strides) = (dims.to_vec(), vec![row_bytes]);
        Self { base, element, dims, strides, box_dims: block.to_vec(), swizzle }
    }

    /// The 128 bytes of the map.
    ///
    /// # Errors
    ///
    /// What `cuTensorMapEncodeTiled` refuses, as [`Kind::Operand`].
    pub fn encode(&self) -> Result<[u8; 128], Fault> {
        self.check().map_err(|sentence| Fault::new(Kind::Operand, sentence))?;
        let mut out = Vec::with_capacity(128);
        out.extend(MAGIC.to_le_bytes());
        out.extend([self.dims.len() as u8, self.element as u8, self.swizzle as u8, 0]);
        out.extend(self.base.to_le_bytes());
        let five = |values: &[u64]| {
            std::array::from_fn::<u64, 5, _>(|at| values.get(at).copied().unwrap_or(1))
        };
        out.extend(five(&self.dims).iter().flat_map(|it| it.to_le_bytes()));
        out.extend(five(&self.strides)[..4].iter().flat_map(|it| it.to_le_bytes()));
        let boxes: Vec<u64> = self.box_dims.iter().map(|it| u64::from(*it)).collect();
        out.extend(five(&boxes).iter().flat_map(|it| (*it as u16).to_le_bytes()));
        out.resize(128, 0);
        Ok(out.try_into().expect("the vector has 128 bytes"))
    }

    pub(crate) fn decode(bytes: &[u8; 128]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[..4] != MAGIC.to_le_bytes() {
            return None;
        }
        let rank = usize::from(bytes[4]);
        let small = |at: usize| u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let swizzles = [Swizzle::None, Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128];
        Some(Self {
            element: u32::from(bytes[5]),
            swizzle: *swizzles.get(usize::from(bytes[6]))?,
            base: word(8),
            dims: (0..rank).map(|at| word(16 + 8 * at)).collect(),
            strides: (0..rank - 1).map(|at| word(56 + 8 * at)).collect(),
            box_dims: (0..rank).map(|at| small(88 + 2 * at)).collect(),
        })
    }

    /// Bytes that one box takes in shared memory.
    pub(crate) fn box_bytes(&self) -> u64 {
        self.box_dims.iter().map(|it| u64::from(*it)).product::<u64>() * u64::from(self.element)
    }

    fn check(&self) -> Result<(), String> {
        let rank = self.dims.len();
        if !(1..=5).contains(&rank) || self.strides.len() != rank - 1 || self.box_dims.len() != rank
        {
            return Err(
                "a tensor map has 1 to 5 dimensions, one stride less, and as many of a box".into(),
            );
        }
        if ![1, 2, 4, 8].contains(&self.element) {
            return Err(format!("an element of {} bytes", self.element));
        }
        if !self.base.is_multiple_of(16) {
            return Err(format!("a tensor at {:#x}, which is no multiple of 16", self.base));
        }
        if let Some(stride) =
            self.strides.iter().find(|it| !it.is_multiple_of(16) || **it >= 1 << 40)
        {
            return Err(format!("a stride of {stride} bytes, no multiple of 16 below 2^40"));
        }
        if let Some(dim) = self.dims.iter().find(|it| !(1..=1 << 32).contains(*it)) {
            return Err(format!("a dimension of {dim} elements"));
        }
        if let Some(dim) = self.box_dims.iter().find(|it| !(1..=256).contains(*it)) {
            return Err(format!("a box of {dim} elements along a dimension; it has 1 to 256"));
        }
        let inner = u64::from(self.box_dims[0] * self.element);
        if !inner.is_multiple_of(16) {
            return Err(format!("rows of a box of {inner} bytes, no multiple of 16"));
        }
        match self.swizzle.span() {
            Some(span) if inner != span => {
                // Hardware takes shorter rows too; their layout is not described, so nobody uses it.
                Err(format!("rows of a box of {inner} bytes with a swizzle over {span}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_come_back_and_bad_ones_are_refused() {
        let map = TensorMap {
            base: 1 << 44,
            element: 2,
            dims: vec![100, 7],
            strides: vec![208],
            box_dims: vec![64, 4],
            swizzle: Swizzle::Bytes128,
        };
        assert_eq!(TensorMap::decode(&map.encode().unwrap()), Some(map.clone()));
        assert!(TensorMap { base: 8, ..map.clone() }.encode().is_err());
        assert!(TensorMap { strides: vec![200], ..map.clone() }.encode().is_err());
        assert!(TensorMap { box_dims: vec![32, 4], ..map.clone() }.encode().is_err());
        assert!(TensorMap { box_dims: vec![64, 257], ..map }.encode().is_err());
    }

    #[test]
    fn a_swizzle_keeps_rows_and_moves_pieces() {
        assert_eq!(Swizzle::Bytes128.place(128 + 5), 128 + 16 + 5);
        assert_eq!(Swizzle::Bytes128.place(1024), 1024);
        assert_eq!(Swizzle::Bytes64.place(0x380), 0x380 ^ 0x30);
        assert_eq!(Swizzle::Bytes32.place(0x80), 0x90);
    }
}
