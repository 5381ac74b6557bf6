//! Scheme `int8` on the host: one scale an output, the greatest magnitude of a row becomes 127.

use super::{Loss, NotFinite, Sensitivity, values_of};

/// Greatest magnitude of an integer.
const MOST: f32 = 127.0;
/// What a byte is more than its integer.
const OFFSET: i32 = 128;

/// Pack one panel; see [`super::pack_panel`].
pub(super) fn pack(
    k: usize,
    rows: &[Option<&[u8]>],
    sensitivity: Option<&Sensitivity>,
    out: &mut [u8],
) -> Result<Loss, NotFinite> {
    let width = rows.len();
    let (bytes, scales) = out.split_at_mut(k.next_multiple_of(4) * width);
    bytes.fill(OFFSET as u8);
    scales.fill(0);
    let mut loss = Loss::default();
    for (output, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let values = values_of(k, row, output)?;
        let (scale, inverse) = scale_of(&values);
        let stored = round(&values, scale, inverse, sensitivity);
        for (quad, place) in stored.chunks(4).zip(bytes[4 * output..].chunks_mut(4 * width)) {
            for (byte, value) in place.iter_mut().zip(quad) {
                *byte = (integer(*value, inverse) as i32 + OFFSET) as u8;
            }
        }
        scales[4 * output..][..4].copy_from_slice(&scale.to_le_bytes());
        loss += Loss::of(&values, &stored);
    }
    Ok(loss)
}

/// What an integer of a row is worth, and how many a value of 1 is.
pub(super) fn scale_of(row: &[f32]) -> (f32, f32) {
    let greatest = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let inverse = MOST / greatest;
    // A row of zeros, and one so small that it is one to whatever it is multiplied with.
    if inverse.is_finite() { (greatest / MOST, inverse) } else { (0.0, 0.0) }
}

/// A row's values as they come back, see [`super::rounded`].
pub(super) fn round(
    values: &[f32],
    scale: f32,
    inverse: f32,
    sensitivity: Option<&Sensitivity>,
) -> Vec<f32> {
    super::rounded(values, sensitivity, |value| integer(value, inverse) * scale)
}

/// The nearest integer, ties to even.
pub(super) fn integer(value: f32, inverse: f32) -> f32 {
    (value * inverse).round_ties_even().clamp(-MOST, MOST)
}

/// The values of row `output` of a packed panel of `width` outputs, as products take them.
#[must_use]
pub fn unpack(k: usize, panel: &[u8], width: usize, output: usize) -> Vec<f64> {
    let (bytes, scales) = panel.split_at(k.next_multiple_of(4) * width);
    let scale = scales[4 * output..][..4].try_into().expect("four bytes");
    let scale = f64::from(f32::from_le_bytes(scale));
    let quads = bytes[4 * output..].chunks(4 * width).flat_map(|place| &place[..4]);
    quads.take(k).map(|byte| f64::from(i32::from(*byte) - OFFSET) * scale).collect()
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::emit::run::{bf16_bytes, random};

    #[test]
    fn a_value_comes_back_within_half_a_step_of_its_row() {
        for k in [1_usize, 3, 4, 130] {
            let rows: Vec<Vec<u8>> = (0..3).map(|row| bf16_bytes(&random(row + 7, k))).collect();
            let given = [Some(&rows[0][..]), None, Some(&rows[1][..]), Some(&rows[2][..])];
            let mut panel = vec![0xff; 4 * (k.next_multiple_of(4) + 4)];
            pack(k, &given, None, &mut panel).unwrap();
            for (output, row) in given.iter().enumerate() {
                let got = unpack(k, &panel, 4, output);
                let want = row.map_or(vec![0.0; k], |row| values_of(k, row, output).unwrap());
                let greatest = want.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let room = f64::from(greatest) / 127.0 * 0.5001;
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - f64::from(*want)).abs() <= room, "k {k}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_one_and_a_greatest_value_becomes_127() {
        let rows = bf16_bytes(&[0.0, 0.0, -3.0, 1.5]);
        let mut panel = vec![0; 2 * 8];
        pack(2, &[Some(&rows[..4]), Some(&rows[4..])], None, &mut panel).unwrap();
        assert_eq!(unpack(2, &panel, 2, 0), [0.0, 0.0]);
        assert_eq!(panel[4..6], [1, 192]); // -127 and 63.5, ties to even
    }

    #[test]
    fn a_row_of_the_smallest_values_becomes_zeros_at_a_loss_that_can_be_told() {
        let least = f32::from(bf16::MIN_POSITIVE_SUBNORMAL);
        let row = bf16_bytes(&[0.0, least, -least, 3.0 * least]);
        let mut panel = vec![0xff; 8];
        let loss = pack(4, &[Some(&row)], None, &mut panel).unwrap();
        assert_eq!(unpack(4, &panel, 1, 0), [0.0; 4]);
        assert!(loss.noise.is_finite(), "{loss:?}");
    }

    #[test]
    fn refuses_what_is_not_finite_by_its_place() {
        let row = bf16::INFINITY.to_le_bytes();
        let error = pack(1, &[None, Some(&row)], None, &mut [0; 16]).unwrap_err();
        assert_eq!(error, NotFinite { output: 1, column: 0 });
    }
}
