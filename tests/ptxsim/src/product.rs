//! Tensor-core arithmetic, by the rule that describes Hopper: products are exact; they and the old sum
//! are shifted to the largest exponent among them and cut off after a fixed number of fraction bits;
//! these are added exactly; the result is cut off (toward zero) to f32. The rule is public: "MMA-Sim",
//! arXiv 2511.10909, `T-FDPA`. It is not f32 arithmetic: small terms beside large ones are lost.

use crate::code::Element;
use crate::scalar::formats::{BF16, E4M3, F16, Format, power_of_two};

/// Fraction bits that terms keep: 25 for 16-bit operands and for `mma.sync`, 13 for fp8 in `wgmma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub fraction: i32,
    /// Fraction bits of the result.
    pub result: u32,
}

pub(crate) const FULL: Rule = Rule { fraction: 25, result: 23 };

/// Elements of one instruction's inner dimension at most.
const INNER: usize = 32;

/// Exponent of zeros: below everything.
const NOWHERE: i32 = -100_000;

/// Factors of one row: each is `significand · 2^(exponent - fraction bits of its format)`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    significands: [i32; INNER],
    exponents: [i32; INNER],
    count: usize,
    /// Values, if one of them is an infinity or NaN.
    specials: Option<[f32; INNER]>,
}

/// Format of an element that is no integer.
fn format(element: Element) -> Format {
    match element {
        Element::Bf16 => BF16,
        Element::F16 => F16,
        Element::E4m3 => E4M3,
        Element::S8 | Element::U8 => unreachable!("integers have no format"),
    }
}

impl Row {
    /// The row whose elements lie in `bytes`.
    pub(crate) fn of(element: Element, bytes: &[u8]) -> Self {
        let format = format(element);
        let size = element.bytes() as usize;
        let count = bytes.len() / size;
        let mut row =
            Self { significands: [0; INNER], exponents: [NOWHERE; INNER], count, specials: None };
        let word = |at: usize| match size {
            2 => u64::from(u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]])),
            _ => u64::from(bytes[at]),
        };
        let all = (1 << format.exponent_bits) - 1;
        let bias = (1 << (format.exponent_bits - 1)) - 1;
        for at in 0..count {
            let bits = word(at);
            let mantissa = bits as i32 & ((1 << format.mantissa_bits) - 1);
            let field = (bits >> format.mantissa_bits) as i32 & all;
            if field == all && !format.value(bits).is_finite() {
                row.specials = Some(std::array::from_fn(|at| {
                    if at < count { format.value(word(at)) as f32 } else { 0.0 }
                }));
                return row;
            }
            let hidden = if field == 0 { 0 } else { 1 << format.mantissa_bits };
            let magnitude = mantissa | hidden;
            let negative = bits >> (format.exponent_bits + format.mantissa_bits) & 1 == 1;
            row.significands[at] = if negative { -magnitude } else { magnitude };
            row.exponents[at] = if magnitude == 0 { NOWHERE } else { field.max(1) - bias };
        }
        row
    }

    pub(crate) fn negate(&mut self) {
        self.significands = self.significands.map(|it| -it);
        self.specials = self.specials.map(|row| row.map(|it| -it));
    }

    fn value(&self, at: usize) -> f32 {
        self.specials.map_or(self.significands[at] as f32, |row| row[at])
    }
}

/// `c + Σ a·b` of one step of the hardware; `a` and `b` are of `element`.
pub(crate) fn dot(rule: Rule, element: Element, a: &Row, b: &Row, c: f32) -> f32 {
    if a.specials.is_some() || b.specials.is_some() || !c.is_finite() {
        return unusual(a, b, c);
    }
    let bits = c.to_bits();
    let field = (bits >> 23 & 0xff) as i32;
    let magnitude = i64::from(bits & 0x7f_ffff | if field == 0 { 0 } else { 1 << 23 });
    let old = if c.is_sign_negative() { -magnitude } else { magnitude };
    let old_exponent = if old == 0 { NOWHERE } else { field.max(1) - 127 };
    let mut top = old_exponent;
    let mut products = [0i32; INNER];
    let mut exponents = [0i32; INNER];
    let count = a.count.min(INNER);
    for at in 0..count {
        products[at] = a.significands[at] * b.significands[at];
        exponents[at] = a.exponents[at] + b.exponents[at];
        top = top.max(exponents[at]);
    }
    if top <= NOWHERE / 2 {
        return 0.0;
    }
    let up = rule.fraction - 2 * format(element).mantissa_bits as i32;
    let mut sum = cut(old, rule.fraction - 23, top - old_exponent);
    // A product has at most 22 bits, and 27 after the shift up.
    for at in 0..count {
        let product = products[at];
        let sign = product >> 31;
        let magnitude = ((product ^ sign) - sign) << up >> (top - exponents[at]).min(31);
        sum += i64::from((magnitude ^ sign) - sign);
    }
    towards_zero(sum, top - rule.fraction, rule.result)
}

/// The sum where a term is an infinity or NaN.
fn unusual(a: &Row, b: &Row, c: f32) -> f32 {
    let terms = (0..a.count).map(|at| a.value(at) * b.value(at));
    let sum = terms
        .filter(|term| !term.is_finite())
        .fold(if c.is_finite() { 0.0 } else { c }, |x, y| x + y);
    if sum.is_nan() { f32::from_bits(0x7fff_ffff) } else { sum }
}

/// `term · 2^(up - down)`, its fraction cut off.
fn cut(term: i64, up: i32, down: i32) -> i64 {
    let sign = term >> 63;
    let magnitude = (term ^ sign) - sign;
    let magnitude = if up >= 0 {
        magnitude << up >> down.clamp(0, 63)
    } else {
        magnitude >> (down - up).clamp(0, 63)
    };
    (magnitude ^ sign) - sign
}

/// `sum · 2^exponent` with at most `fraction` bits after the first, the rest cut off.
fn towards_zero(sum: i64, exponent: i32, fraction: u32) -> f32 {
    if sum == 0 {
        return 0.0;
    }
    let magnitude = sum.unsigned_abs();
    let lead = 63 - magnitude.leading_zeros() as i32;
    // Below the normal range the last bit has a fixed place.
    let first = (lead + exponent).max(-126);
    let drop = (first - fraction as i32 - exponent).clamp(0, 63);
    let kept = magnitude >> drop << drop;
    let value = kept as f64 * power_of_two(exponent.clamp(-1022, 1023));
    let out = if first > 127 { f32::INFINITY } else { value as f32 };
    if sum < 0 { -out } else { out }
}

/// A number made of all bytes of a row of factors, for [`stirred`].
pub(crate) fn stir(row: &[u8]) -> u32 {
    let words = row.chunks_exact(4).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]));
    words.fold(row.len() as u32, |all, word| (all ^ word).wrapping_mul(0x9e37_79b1).rotate_left(13))
}

/// In the place of a sum of products of two rows: `old` and a small number made of both rows. It is another
/// one where a factor is, and whatever the order of such sums.
pub(crate) fn stirred([a, b]: [u32; 2], old: u32, element: Element) -> u32 {
    let small = (a.wrapping_mul(b | 1) >> 24) as u8 as i8;
    match element {
        Element::S8 | Element::U8 => (old as i32).wrapping_add(small.into()) as u32,
        _ => (f32::from_bits(old) + f32::from(small) / 128.0).to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(values: &[f32]) -> Row {
        let bytes = values.iter().flat_map(|it| ((it.to_bits() >> 16) as u16).to_le_bytes());
        Row::of(Element::Bf16, &bytes.collect::<Vec<u8>>())
    }

    #[test]
    fn small_integers_are_exact() {
        let a = factors(&[1.0, -2.0, 3.0, 0.0]);
        let b = factors(&[4.0, 5.0, -6.0, 7.0]);
        assert_eq!(dot(FULL, Element::Bf16, &a, &b, 10.0), 10.0 + 4.0 - 10.0 - 18.0);
        let large = factors(&[255.0; 16]);
        assert_eq!(dot(FULL, Element::Bf16, &large, &large, 0.0), 16.0 * 255.0 * 255.0);
    }

    #[test]
    fn a_stirred_sum_is_another_one_where_a_factor_is() {
        let rows = [[3u8; 32], [5; 32]].map(|row| stir(&row));
        let mut other = [3u8; 32];
        other[17] = 2;
        for element in [Element::Bf16, Element::S8] {
            let sum = stirred(rows, 0, element);
            assert_ne!(sum, stirred([stir(&other), rows[1]], 0, element));
            assert_ne!(sum, stirred([rows[0], stir(&other)], 0, element));
            let both = [stir(&other), rows[1]];
            let [one, two] = [[rows, both], [both, rows]]
                .map(|order| order.into_iter().fold(0, |old, pair| stirred(pair, old, element)));
            assert_eq!(one, two);
        }
    }

    #[test]
    fn what_lies_below_25_bits_is_lost_and_the_result_is_cut() {
        let one = factors(&[1.0, 1.0]);
        let small = |x: f32| factors(&[1.0, x]);
        // 2^-26 is dropped before the addition, 2^-25 after it.
        assert_eq!(dot(FULL, Element::Bf16, &one, &small(2f32.powi(-26)), 0.0), 1.0);
        assert_eq!(dot(FULL, Element::Bf16, &one, &small(-(2f32.powi(-26))), 0.0), 1.0);
        let below = dot(FULL, Element::Bf16, &one, &small(-(2f32.powi(-25))), 0.0);
        assert_eq!(below, 1.0 - 2f32.powi(-24), "cut toward zero, not rounded to 1");
        assert_eq!(dot(FULL, Element::Bf16, &one, &small(2f32.powi(-24)), 0.0), 1.0);
    }

    #[test]
    fn specials_and_tiny_values() {
        let inf = factors(&[f32::INFINITY]);
        assert!(dot(FULL, Element::Bf16, &inf, &factors(&[0.0]), 0.0).is_nan());
        assert_eq!(dot(FULL, Element::Bf16, &inf, &factors(&[-1.0]), 5.0), f32::NEG_INFINITY);
        let tiny = factors(&[2f32.powi(-70)]);
        assert_eq!(dot(FULL, Element::Bf16, &tiny, &tiny, 0.0), 2f32.powi(-140));
    }
}
