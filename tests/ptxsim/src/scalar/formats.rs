//! Narrow floating-point formats: rounding an exact value to one, its bits, and back.

/// How a value between two neighbours is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Near,
    Zero,
    Down,
    Up,
}

/// A binary format with a sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Format {
    pub exponent_bits: u32,
    pub mantissa_bits: u32,
    /// Largest finite value.
    pub max: f64,
    /// e4m3 has no infinity: all ones is its only NaN.
    pub has_infinity: bool,
}

pub(crate) const F32: Format =
    Format { exponent_bits: 8, mantissa_bits: 23, max: f32::MAX as f64, has_infinity: true };
pub(crate) const BF16: Format = Format {
    exponent_bits: 8,
    mantissa_bits: 7,
    max: 3.389_531_389_251_535_5e38,
    has_infinity: true,
};
pub(crate) const F16: Format =
    Format { exponent_bits: 5, mantissa_bits: 10, max: 65504.0, has_infinity: true };
pub(crate) const E4M3: Format =
    Format { exponent_bits: 4, mantissa_bits: 3, max: 448.0, has_infinity: false };
pub(crate) const E5M2: Format =
    Format { exponent_bits: 5, mantissa_bits: 2, max: 57344.0, has_infinity: true };

impl Format {
    fn bias(&self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// Exponent of the smallest normal value.
    fn min_exponent(&self) -> i32 {
        1 - self.bias()
    }

    /// The neighbour of `x` in this format; beyond `max` an infinity, or `max` where the direction
    /// says so.
    pub(crate) fn round(&self, x: f64, how: Round) -> f64 {
        if x == 0.0 || !x.is_finite() {
            return x;
        }
        let exponent = (((x.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(self.min_exponent());
        let quantum = power_of_two(exponent - self.mantissa_bits as i32);
        let scaled = x / quantum;
        let rounded = match how {
            Round::Near => scaled.round_ties_even(),
            Round::Zero => scaled.trunc(),
            Round::Down => scaled.floor(),
            Round::Up => scaled.ceil(),
        } * quantum;
        if rounded.abs() <= self.max {
            return rounded.copysign(x);
        }
        let inward = match how {
            Round::Near => false,
            Round::Zero => true,
            Round::Down => x > 0.0,
            Round::Up => x < 0.0,
        };
        if inward { self.max.copysign(x) } else { f64::INFINITY.copysign(x) }
    }

    /// Bits of `x`, which this format can hold exactly.
    pub(crate) fn bits(&self, x: f64) -> u64 {
        let magnitude_bits = self.exponent_bits + self.mantissa_bits;
        if x.is_nan() {
            return (1 << magnitude_bits) - 1;
        }
        let sign = u64::from(x.is_sign_negative()) << magnitude_bits;
        if x.is_infinite() {
            let all = ((1 << self.exponent_bits) - 1) << self.mantissa_bits;
            return sign | if self.has_infinity { all } else { (1 << magnitude_bits) - 1 };
        }
        let exponent = (((x.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(self.min_exponent());
        let units = (x.abs() / power_of_two(exponent - self.mantissa_bits as i32)) as u64;
        // The leading one of a normal value adds 1 to the exponent field.
        let field = (exponent - self.min_exponent()) as u64;
        sign | ((field << self.mantissa_bits) + units)
    }

    /// The value of `bits`.
    pub(crate) fn value(&self, bits: u64) -> f64 {
        let magnitude_bits = self.exponent_bits + self.mantissa_bits;
        let mantissa = bits & ((1 << self.mantissa_bits) - 1);
        let field = (bits >> self.mantissa_bits) & ((1 << self.exponent_bits) - 1);
        let sign = if (bits >> magnitude_bits) & 1 == 1 { -1.0 } else { 1.0 };
        let ones = (1 << self.exponent_bits) - 1;
        if field == ones && self.has_infinity {
            return if mantissa == 0 { sign * f64::INFINITY } else { f64::NAN };
        }
        if !self.has_infinity && bits & ((1 << magnitude_bits) - 1) == (1 << magnitude_bits) - 1 {
            return f64::NAN;
        }
        let (units, exponent) = if field == 0 {
            (mantissa, self.min_exponent())
        } else {
            (mantissa | 1 << self.mantissa_bits, field as i32 - self.bias())
        };
        sign * units as f64 * power_of_two(exponent - self.mantissa_bits as i32)
    }
}

/// `2^exponent` for exponents a normal f64 has.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// `x + y`, with its last bit odd where the sum is not exact: rounding it again to a format with at
/// most 50 bits gives what rounding the exact sum would.
pub(crate) fn add_to_odd(x: f64, y: f64) -> f64 {
    let sum = x + y;
    let back = sum - x;
    let lost = (x - (sum - back)) + (y - back);
    if lost == 0.0 || !sum.is_finite() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let away = (lost > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_narrow_format_comes_back() {
        for (format, bits) in [(BF16, 16), (F16, 16), (E4M3, 8), (E5M2, 8)] {
            for word in 0..1u64 << bits {
                let value = format.value(word);
                if !value.is_nan() {
                    assert_eq!(format.bits(format.round(value, Round::Near)), word, "{format:?}");
                }
            }
        }
    }

    #[test]
    fn rounding_directions() {
        assert_eq!(BF16.round(1.0 + 1.0 / 256.0, Round::Near), 1.0);
        assert_eq!(BF16.round(1.0 + 3.0 / 256.0, Round::Near), 1.0 + 2.0 / 128.0);
        assert_eq!(BF16.round(1.0 + 1.0 / 256.0, Round::Up), 1.0 + 1.0 / 128.0);
        assert_eq!(F16.round(1e6, Round::Near), f64::INFINITY);
        assert_eq!(F16.round(1e6, Round::Zero), 65504.0);
        assert_eq!(E4M3.round(3e-3, Round::Near), 2.0 / 512.0);
    }
}
