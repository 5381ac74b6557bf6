//! How the next token is drawn, to the bit: what every device does, and the host.
//!
//! A token's weight is a whole number, [`UNIT`] for the most probable one. Sums of whole numbers do not
//! depend on their order, so that a thousand threads come to the sum that one comes to. What leads to a
//! weight is f32 arithmetic, one rounding an operation, in the order in which it stands here:
//!
//! ```text
//! 1 penalty   logits of tokens in the history: above 0 divided, else multiplied
//! 2 weight    of every token, from its distance to the largest logit
//! 3 top-k     the k largest logits, of equal ones the lower ids
//! 4 share     of these the fewest largest ones that have the share of their weights
//! 5 least     of these the ones that have the least weight
//! 6 draw      the one in whose part of the sum a random number falls, ids ascending
//! ```
//!
//! Only additions, subtractions, products and one division: a fused multiply-add would be a call of a
//! library on machines without one.

/// Weight of the largest logit. Less than a part of [`UNIT`], 9.3e-10 of the most probable token, is
/// nothing: together at most 1.5e-4 of that one for 151,936 tokens. The sum of 2^33 tokens is an i64.
pub const UNIT: u32 = 1 << UNIT_BITS;

/// See [`UNIT`].
pub const UNIT_BITS: i32 = 30;

/// Powers of two at and below this have no weight.
pub const FARTHEST: f32 = -31.0;

/// `(2^f - 1) / f` for |f| ≤ 1/2, Chebyshev fit; relative error of `2^f` by it 8.8e-8.
pub const POWER: [f32; 6] = [
    std::f32::consts::LN_2,
    0.240_226_5,
    0.055_503_57,
    0.009_618_083,
    0.001_339_086_3,
    0.000_154_531_63,
];

/// Added to a number of less than 2^22 it leaves the nearest whole one, ties to even, in the low bits.
pub const ROUNDER: f32 = 12_582_912.0;

/// What a draw depends on besides logits, history and position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Powers of two for a distance of 1 between logits; finite.
    pub rate: f32,
    /// Tokens that are kept, at least 1.
    pub top_k: u32,
    /// Their share that is kept, in 2^-64; all ones keep all.
    pub share: u64,
    /// Least weight of a token that is kept, at least 1.
    pub least: u32,
    /// 1 changes nothing.
    pub penalty: f32,
    pub seed: u64,
}

impl Draw {
    /// The largest logit, of equal ones the lowest id.
    pub const GREEDY: Self =
        Self { rate: f32::MAX, top_k: 1, share: u64::MAX, least: 1, penalty: 1.0, seed: 0 };

    /// The value of `top_k` that keeps all.
    pub const ALL: u32 = i32::MAX.cast_unsigned();

    /// Words of [`Self::words`].
    pub const WORDS: usize = 8;

    /// Whether nothing but the largest logit counts.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.top_k == 1 && self.penalty == 1.0
    }

    /// As kernels read it: the fields in their order, of two words the low one first.
    #[must_use]
    pub fn words(&self) -> [u32; Self::WORDS] {
        let [share_low, share_high] = words_of(self.share);
        let [seed_low, seed_high] = words_of(self.seed);
        let (rate, penalty) = (self.rate.to_bits(), self.penalty.to_bits());
        let (top_k, least) = (self.top_k, self.least);
        [rate, top_k, share_low, share_high, least, penalty, seed_low, seed_high]
    }
}

fn words_of(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The logit of a token in the history.
#[must_use]
pub fn penalised(logit: f32, penalty: f32) -> f32 {
    if logit > 0.0 { logit / penalty } else { logit * penalty }
}

/// `⌊UNIT · 2^((logit - top) · rate)⌋`, nearly; exactly [`UNIT`] for `top` itself.
///
/// Expects numbers, `logit` at most `top`, `top` finite.
#[must_use]
pub fn weight(logit: f32, top: f32, rate: f32) -> u32 {
    let power = (logit - top) * rate;
    if power > FARTHEST {
        let rounded = power + ROUNDER;
        let rest = power - (rounded - ROUNDER);
        let whole = rounded.to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed();
        let [coefficients @ .., last] = POWER;
        let slope = coefficients.iter().rev().fold(last, |sum, next| sum * rest + next);
        // The exponent of 2^(whole + UNIT_BITS), which is at least -1.
        let scale = f32::from_bits(((whole + UNIT_BITS + 127) << 23).cast_unsigned());
        ((slope * rest + 1.0) * scale) as u32
    } else {
        0
    }
}

/// `total · share`, rounded up.
#[must_use]
pub fn share_of(total: u64, share: u64) -> u64 {
    let product = u128::from(total) * u128::from(share);
    product.div_ceil(1 << 64) as u64 // at most `total`
}

/// A place in `0 .. total` for the token that goes to `position`.
#[must_use]
pub fn place(seed: u64, position: u64, total: u64) -> u64 {
    let [low, high] = words_of(position);
    let random = philox([low, high, 0, 0], words_of(seed));
    let random = u64::from(random[0]) << 32 | u64::from(random[1]);
    ((u128::from(random) * u128::from(total)) >> 64) as u64
}

/// Factors of the two halves of a counter.
pub const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// Added to the key after each round: fractions of the golden ratio and of the square root of 3.
pub const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
pub const ROUNDS: usize = 10;

/// Four random words of one key and counter: nothing to store, nothing to step.
///
/// Philox 4x32 with 10 rounds. Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As
/// Easy as 1, 2, 3", SC 2011; the vectors in the test are that paper's library's.
#[must_use]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [low, high] =
            [0, 1].map(|half| u64::from(MULTIPLIERS[half]) * u64::from(counter[2 * half]));
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG2_E: f64 = std::f64::consts::LOG2_E;

    #[test]
    fn a_weight_is_the_probability_in_units() {
        let top = 17.25;
        for temperature in [0.25, 0.7, 1.0, 3.0] {
            let rate = (LOG2_E / temperature) as f32;
            for step in 0..4000_u16 {
                let logit = top - f32::from(step) / 160.0;
                let exact = (f64::from(logit - top) / temperature).exp() * f64::from(UNIT);
                let got = f64::from(weight(logit, top, rate));
                // The power is off by at most two roundings of a number up to 31, its ln 2 fold counts.
                let room = 1.0 + 4e-6 * exact;
                assert!((got - exact).abs() <= room, "{logit} at {temperature}: {got}, {exact}");
            }
        }
    }

    #[test]
    fn the_largest_logit_has_the_unit_and_no_other_more() {
        for top in [-3.0, 0.0, 1e-30, 88.5, f32::MAX] {
            for rate in [0.0, 1e-40, 0.3, std::f32::consts::LOG2_E, 7e5, f32::MAX] {
                assert_eq!(weight(top, top, rate), UNIT);
                for below in 1..400_u16 {
                    let logit = top - f32::from(below) * top.abs().max(1.0) / 128.0;
                    let weight = weight(logit, top, rate);
                    assert!(weight <= UNIT, "{logit} below {top} at {rate}: {weight}");
                }
                assert_eq!(weight(f32::NEG_INFINITY, top, rate), 0);
            }
        }
    }

    #[test]
    fn what_is_too_far_below_has_no_weight() {
        assert_eq!(weight(-29.9, 0.0, 1.0), 1);
        assert_eq!(weight(-30.1, 0.0, 1.0), 0);
        assert_eq!(weight(-30.9, 0.0, 1.0), 0);
        assert_eq!(weight(-31.0, 0.0, 1.0), 0);
        assert_eq!(weight(f32::MIN, 0.0, f32::MAX), 0);
    }

    #[test]
    fn a_share_is_rounded_up_and_all_ones_are_all() {
        assert_eq!(share_of(10, 1 << 63), 5);
        assert_eq!(share_of(11, 1 << 63), 6);
        assert_eq!(share_of(11, 0), 0);
        for total in [1, 7, u64::from(UNIT), 151_936 << UNIT_BITS, 1 << 63] {
            assert_eq!(share_of(total, u64::MAX), total);
        }
    }

    #[test]
    fn the_words_are_in_the_order_of_the_fields() {
        let draw = Draw {
            rate: 1.0,
            top_k: 2,
            share: 3 << 32 | 4,
            least: 5,
            penalty: -1.0,
            seed: 6 << 32 | 7,
        };
        assert_eq!(draw.words(), [0x3f80_0000, 2, 4, 3, 5, 0xbf80_0000, 7, 6]);
    }

    #[test]
    fn the_published_vectors_come_out() {
        let ones = u32::MAX;
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn places_are_within_and_spread() {
        const WHOLE: u64 = 1 << 53;
        let places: Vec<f64> = (0..10_000)
            .map(|position| {
                let place = place(7, position, WHOLE);
                assert!(place < WHOLE);
                place as f64 / WHOLE as f64
            })
            .collect();
        let mean = places.iter().sum::<f64>() / 10_000.0;
        // Five times the deviation of the mean of 10,000 uniform numbers, 1 / sqrt(12 * 10,000).
        assert!((mean - 0.5).abs() < 5.0 * 0.0029, "mean {mean}");
        assert!((0..100).all(|position| place(3, position, 1) == 0));
    }
}
