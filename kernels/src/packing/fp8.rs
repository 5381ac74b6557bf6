//! Scheme `fp8` on the host: one scale an output, the greatest magnitude of a row becomes 448.

/// Greatest magnitude of a float of 8 bits (e4m3).
pub const MOST: f32 = 448.0;

/// Exponent of the least normal magnitude, and bits of a fraction.
const LEAST: i32 = -6;
const FRACTION: i32 = 3;

/// What a float of a row is worth, and how many a value of 1 is.
pub(super) fn scale_of(row: &[f32]) -> (f32, f32) {
    let greatest = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let inverse = MOST / greatest;
    // A row of zeros, and one so small that it is one to whatever it is multiplied with.
    if inverse.is_finite() { (greatest / MOST, inverse) } else { (0.0, 0.0) }
}

/// The nearest float of 8 bits, ties to even; of magnitudes beyond the greatest, that one.
#[must_use]
pub fn nearest(value: f32) -> u8 {
    let magnitude = value.abs().min(MOST);
    let sign = u8::from(value.is_sign_negative()) << 7;
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(LEAST);
    let steps = (magnitude * 2.0_f32.powi(FRACTION - exponent)).round_ties_even() as i32;
    // Steps of a normal magnitude are 8 to 16: with 16 the exponent is one more.
    sign | (((exponent - LEAST) << FRACTION) + steps) as u8
}

/// The value of a float of 8 bits that is a number.
#[must_use]
pub fn value(code: u8) -> f32 {
    let (field, fraction) = (i32::from(code >> 3 & 15), i32::from(code & 7));
    let (steps, exponent) =
        if field == 0 { (fraction, LEAST) } else { (fraction + 8, field - 1 + LEAST) };
    let magnitude = steps as f32 * 2.0_f32.powi(exponent - FRACTION);
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_is_a_number_is_nearest_to_its_value() {
        for code in (0..=255_u8).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(nearest(value(code)), code, "{code:#x}");
        }
        assert_eq!(
            [0x7e, 0x08, 0x01, 0x38, 0xb8].map(value),
            [448.0, 0.015625, 0.001953125, 1.0, -1.0]
        );
    }

    #[test]
    fn between_two_floats_the_even_one_is_nearest() {
        for code in 0..0x7e_u8 {
            let [low, high] = [code, code + 1].map(value);
            let even = code + code % 2;
            assert_eq!(nearest((low + high) / 2.0), even, "{code:#x}");
            assert_eq!(nearest(low + (high - low) * 0.49), code, "{code:#x}");
            assert_eq!(nearest(low + (high - low) * 0.51), code + 1, "{code:#x}");
        }
        assert_eq!([nearest(1e9), nearest(-1e9), nearest(1e-9)], [0x7e, 0xfe, 0]);
    }
}
