//! Random numbers that are a function of (key, counter): nothing to store, nothing to step.
//!
//! Philox 4x32 with 10 rounds. Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As
//! Easy as 1, 2, 3", SC 2011; the vectors in the test are that paper's library's.

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// Added to the key after each round: fractions of the golden ratio and of the square root of 3.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;

/// Four random words of one key and counter.
pub(super) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
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

/// A number in `0..1`, a multiple of 2⁻⁵³, for one position of one seed.
pub(super) fn uniform(seed: u64, position: u64) -> f64 {
    let words = |value: u64| [value as u32, (value >> 32) as u32];
    let [low, high] = words(position);
    let random = philox([low, high, 0, 0], words(seed));
    let bits = u64::from(random[0]) << 32 | u64::from(random[1]);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn uniform_numbers_are_below_one_and_spread() {
        let numbers: Vec<f64> = (0..10_000).map(|position| uniform(7, position)).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 10_000.0;
        // Five times the deviation of the mean of 10,000 uniform numbers, 1 / sqrt(12 * 10,000).
        assert!((mean - 0.5).abs() < 5.0 * 0.0029, "mean {mean}");
    }
}
