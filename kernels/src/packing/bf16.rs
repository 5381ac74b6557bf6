//! Scheme `bf16`: pairs along K of all outputs of a panel stand together.

use crate::emit::{Builder, I32, Index, Ptr};

/// Pack one panel; see [`super::pack_panel`].
pub(super) fn pack(k: usize, rows: &[Option<&[u8]>], out: &mut [u8]) {
    out.fill(0);
    let width = rows.len();
    for (output, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        assert_eq!(row.len(), 2 * k, "a row has `k` values of two bytes");
        let places = out[4 * output..].chunks_mut(4 * width);
        for (pair, place) in row.chunks(4).zip(places) {
            place[..pair.len()].copy_from_slice(pair);
        }
    }
}

/// The value bytes of row `output` of a packed panel of `width` outputs: the inverse of [`pack`].
#[must_use]
pub fn unpack(k: usize, panel: &[u8], width: usize, output: usize) -> Vec<u8> {
    let places = panel[4 * output..].chunks(4 * width);
    let mut row: Vec<u8> = places.flat_map(|place| place[..4].to_vec()).collect();
    row.truncate(2 * k);
    row
}

/// In generated code: the two vectors of pair number `pair` of the panel at `panel`, loaded in the
/// order of their bytes and not before what was loaded so earlier.
pub(crate) fn load_pairs<'c>(k: &mut Builder<'c>, panel: Ptr<'c>, pair: Index<'c>) -> [I32<'c>; 2] {
    let lanes = k.lanes();
    let vector = u64::from(lanes) * 4;
    let offset = k.mul_constant(pair, 2 * vector);
    let first = k.at_bytes(panel, offset);
    let second = k.at_bytes_constant(first, vector);
    [first, second].map(|place| k.load_in_order::<I32>(place, lanes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_from_its_panel_also_when_k_is_odd() {
        for k in [1_usize, 2, 7, 16] {
            let rows: Vec<Vec<u8>> =
                (0..3).map(|row| (0..2 * k as u8).map(|b| 40 * row + b + 1).collect()).collect();
            let given: Vec<Option<&[u8]>> =
                vec![Some(&rows[0]), None, Some(&rows[1]), Some(&rows[2])];
            let mut panel = vec![0xff; 4 * k.next_multiple_of(2) * 2];
            pack(k, &given, &mut panel);
            for (output, row) in given.iter().enumerate() {
                let zeros = vec![0; 2 * k];
                assert_eq!(unpack(k, &panel, 4, output), row.unwrap_or(&zeros), "k {k}");
            }
        }
    }
}
