//! Weights that are not stored: what the runtime makes of a seed when it loads the program, in the
//! layouts that packing would have given, with the spread that `--weights random:SEED` draws.

use sail_ir::artifact::{Fill, Recipe, Values};
use sail_ir::id::{IdVec, WeightId};
use sail_ir::plan::{Cuda, Weight};
use sail_ir::scheme::Scheme;
use sail_kernels::packing::Arrangement;
use sail_models::Weights;
use sail_models::tensor::Draw;

use crate::plan::weights::{Packed, Source};

/// Deviation of odd numbers from -127 to 127, all equally likely: codes of 8 bits, as they are made.
const DEVIATION_OF_BYTES: f64 = 73.899_03;
/// The same of 0 to 15.
const DEVIATION_OF_NIBBLES: f64 = 4.609_77;
/// The same of floats of 8 bits as they are made: halves and wholes of 1 to 1.875.
const DEVIATION_OF_FLOATS: f64 = 1.158_78;
/// The zero point of 4 bits.
const ZERO_OF_NIBBLES: u32 = 8;
/// Cosines and sines are not beyond 1: neither is a bell of this deviation.
const COSINES: Draw = Draw { mean: 0.0, deviation: 0.3 };

/// How all weights of a plan are made; `kernel` makes them on a GPU.
pub fn recipe(
    (rows, sources): (&IdVec<WeightId, Weight>, &[Source]),
    weights: &Weights,
    seed: u64,
    kernel: Option<Cuda>,
) -> Recipe {
    let mut maker = Maker { seed, fills: Vec::new() };
    for ((_, row), source) in rows.iter().zip(sources) {
        maker.weight(row, source, weights);
    }
    let bytes = rows.iter().map(|(_, row)| row.offset + row.bytes).max().unwrap_or(0);
    Recipe { bytes, kernel, fills: maker.fills }
}

struct Maker {
    seed: u64,
    fills: Vec<Fill>,
}

impl Maker {
    fn weight(&mut self, row: &Weight, source: &Source, weights: &Weights) {
        let draw_of = |path: &String| match weights.tensor(path) {
            Some(tensor) => tensor.draw,
            None => panic!("broken invariant `link.known`: no tensor `{path}`"),
        };
        match source {
            Source::Packed(packed) => {
                let draw = packed.paths.first().map(draw_of);
                let draw = draw.expect("broken invariant `weights.join`: no path");
                match packed.arrangement {
                    Arrangement::Rows => self.rows(row.offset, packed, draw),
                    Arrangement::Panels { .. } => self.panels(row.offset, packed, draw),
                }
            }
            Source::Plain { paths, .. } => {
                let draw = paths.first().map_or(COSINES, draw_of);
                self.run(row.offset, row.bytes, bell(draw));
            }
            Source::RopeTable { .. } => self.run(row.offset, row.bytes, bell(COSINES)),
            Source::Order(_) => panic!("broken invariant `made.order`: experts by a profile"),
        }
    }

    /// Rows along K, and what they need behind them.
    fn rows(&mut self, offset: u64, packed: &Packed, draw: Draw) {
        let Packed { scheme, k, .. } = *packed;
        let rows = packed.panels().count() * u64::from(packed.arrangement.width());
        let pitch = scheme.row_bytes(k);
        let used = match scheme {
            Scheme::Bf16 => 2 * k,
            Scheme::Int8 | Scheme::Int8Weight | Scheme::Fp8 => k,
            Scheme::Int4 => k.div_ceil(2),
        };
        let codes = codes(scheme, draw);
        self.fill(Fill { offset, rows, pitch, used, key: 0, values: codes });
        let behind = rows * scheme.bytes_behind(k);
        self.run(offset + rows * pitch, behind, beside(scheme, draw));
    }

    /// Panels, each with what it needs at its end, or at the end of each of its groups.
    fn panels(&mut self, offset: u64, packed: &Packed, draw: Draw) {
        let Packed { scheme, k, .. } = *packed;
        let width = u64::from(packed.arrangement.width());
        let (panels, panel) = (packed.panels().count(), packed.panel_bytes());
        let (codes, beside) = (codes(scheme, draw), beside(scheme, draw));
        let quads = k.next_multiple_of(4);
        // Bytes of codes and of what follows them, again and again within a panel.
        let groups: Vec<(u64, u64)> = match scheme {
            Scheme::Bf16 => vec![(panel, 0)],
            Scheme::Int8 | Scheme::Int8Weight => vec![(width * quads, width * 4)],
            Scheme::Fp8 => panic!("broken invariant `link.rows`: panels of `fp8`"),
            Scheme::Int4 => {
                let group = |at| Scheme::GROUP.min(quads - at);
                let groups = (0..quads).step_by(Scheme::GROUP as usize);
                groups.map(|at| (width * group(at) / 2, width * 4)).collect()
            }
        };
        // Groups of one size are rows themselves; otherwise each has rows in all panels.
        let even = groups.windows(2).all(|pair| pair[0] == pair[1]);
        let (rows, pitch, groups) = match even {
            true => {
                let count = groups.len() as u64;
                (panels * count, panel / count, &groups[..1])
            }
            false => (panels, panel, &groups[..]),
        };
        let mut start = offset;
        for (coded, behind) in groups.iter().copied() {
            let fill = |offset, used, values| Fill { offset, rows, pitch, used, key: 0, values };
            self.fill(fill(start, coded, codes));
            self.fill(fill(start + coded, behind, beside));
            start += coded + behind;
        }
    }

    /// Bytes without gaps.
    fn run(&mut self, offset: u64, bytes: u64, values: Values) {
        self.fill(Fill { offset, rows: 1, pitch: bytes, used: bytes, key: 0, values });
    }

    /// In whole words: half a word at the end of a row stays zero.
    fn fill(&mut self, fill: Fill) {
        const WORD: u64 = 4;
        let used = fill.used / WORD * WORD;
        if used == 0 {
            return;
        }
        let pitch = fill.pitch.next_multiple_of(WORD);
        let key = key(self.seed, self.fills.len() as u64);
        self.fills.push(Fill { used, pitch, key, ..fill });
    }
}

fn bell(draw: Draw) -> Values {
    Values::bell(draw.mean, draw.deviation)
}

/// What the codes of a product's weight are.
fn codes(scheme: Scheme, draw: Draw) -> Values {
    match scheme {
        Scheme::Bf16 => bell(draw),
        // Odd, so that none is -128, or 0 where that stands for it.
        Scheme::Int8 | Scheme::Int8Weight => Values::Bits { keep: u32::MAX, set: 0x0101_0101 },
        Scheme::Int4 => Values::Bits { keep: u32::MAX, set: 0 },
        // Sign, fraction, and an exponent of -1 or 0: all are numbers.
        Scheme::Fp8 => Values::Bits { keep: 0x8f8f_8f8f, set: 0x3030_3030 },
    }
}

/// The scale with which they have the deviation that was asked for.
fn beside(scheme: Scheme, draw: Draw) -> Values {
    match scheme {
        Scheme::Bf16 => Values::same(0),
        Scheme::Int8 | Scheme::Int8Weight => {
            Values::same(((draw.deviation / DEVIATION_OF_BYTES) as f32).to_bits())
        }
        Scheme::Fp8 => Values::same(((draw.deviation / DEVIATION_OF_FLOATS) as f32).to_bits()),
        Scheme::Int4 => {
            let scale = (draw.deviation / DEVIATION_OF_NIBBLES) as f32;
            Values::same(scale.to_bits() & 0xffff_0000 | ZERO_OF_NIBBLES)
        }
    }
}

/// A key for each fill of a seed.
fn key(seed: u64, fill: u64) -> u32 {
    let x = seed ^ (fill + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use sail_kernels::packing::{Join, rows, unpack_row};

    fn packed(scheme: Scheme, arrangement: Arrangement, k: u64) -> Packed {
        let paths = vec!["a".to_owned()];
        Packed { paths, join: Join::One, scheme, n: 40, k, arrangement, order: Vec::new() }
    }

    /// The bytes that a recipe makes of one weight.
    fn made(packed: &Packed, draw: Draw) -> Vec<u8> {
        let mut maker = Maker { seed: 5, fills: Vec::new() };
        match packed.arrangement {
            Arrangement::Rows => maker.rows(0, packed, draw),
            Arrangement::Panels { .. } => maker.panels(0, packed, draw),
        }
        let mut bytes = vec![0; Source::Packed(packed.clone()).bytes() as usize];
        for fill in &maker.fills {
            for index in 0..fill.words() {
                let at = (fill.offset + fill.place(index)) as usize;
                assert_eq!(bytes[at..at + 4], [0; 4], "written twice: {fill:?}");
                bytes[at..at + 4].copy_from_slice(&fill.word(index).to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn what_is_made_unpacks_to_the_spread_of_random_weights() {
        let draw = Draw { mean: 0.0, deviation: 0.03 };
        for (scheme, k) in Scheme::ALL.into_iter().flat_map(|it| [(it, 512), (it, 200)]) {
            for arrangement in [Arrangement::Rows, Arrangement::Panels { width: 32 }] {
                if scheme == Scheme::Fp8 && arrangement != Arrangement::Rows {
                    continue;
                }
                let packed = packed(scheme, arrangement, k);
                let (bytes, panel) = (made(&packed, draw), packed.panel_bytes() as usize);
                let outputs = packed.panels().count() * u64::from(arrangement.width());
                let row = |output: usize| match arrangement {
                    Arrangement::Rows => {
                        let all = (&bytes[..], outputs as usize);
                        rows::unpack_row(scheme, k as usize, all, output)
                    }
                    Arrangement::Panels { .. } => {
                        let panel = &bytes[output / 32 * panel..][..panel];
                        unpack_row(scheme, k as usize, panel, 32, output % 32)
                    }
                };
                let values: Vec<f64> = (0..40).flat_map(row).collect();
                let squares: f64 = values.iter().map(|value| value * value).sum();
                let deviation = (squares / values.len() as f64).sqrt();
                let near = (deviation / draw.deviation - 1.0).abs();
                assert!(near < 0.05, "{scheme} {arrangement:?} {k}: {deviation}");
            }
        }
    }

    #[test]
    fn keys_differ_by_seed_and_fill() {
        let keys = [key(1, 0), key(1, 1), key(2, 0), key(1 << 40, 0)];
        assert!((0..4).all(|at| keys[..at].iter().all(|other| *other != keys[at])), "{keys:?}");
    }
}
