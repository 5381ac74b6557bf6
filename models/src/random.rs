//! Weights out of a seed: real shapes can be compiled and timed without real weights.
//!
//! Element `i` of a tensor is a function of (seed, tensor name, `i`) alone, made of whole-number
//! mixing and correctly rounded arithmetic, so any rows of any tensor can be had in any order, on
//! any machine, by any number of threads, and are always the same.

use std::collections::HashMap;

use half::bf16;

use crate::tensor::{Draw, Tensor};

/// Tensors that exist only as shape, spread and seed.
#[derive(Debug)]
pub struct RandomWeights {
    tensors: HashMap<String, Drawn>,
    /// One per distinct [`Draw`].
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Drawn {
    elements: u64,
    key: u64,
    table: usize,
}

/// Bits of randomness in one element.
const BITS: u32 = 12;
/// Elements made of one 64-bit number.
const LANES: u64 = 4;

/// Every value a tensor can have, by its 12 random bits.
type Table = Box<[bf16; 1 << BITS]>;

impl RandomWeights {
    /// The weights that `seed` gives `tensors`; costs a few microseconds a tensor.
    pub fn new(seed: u64, tensors: &[Tensor]) -> Self {
        let bell = bell();
        let mut draws: Vec<Draw> = Vec::new();
        let mut drawn = HashMap::with_capacity(tensors.len());
        for tensor in tensors {
            let table = draws.iter().position(|draw| *draw == tensor.draw).unwrap_or_else(|| {
                draws.push(tensor.draw);
                draws.len() - 1
            });
            let (elements, key) = (tensor.bytes() / 2, key(seed, &tensor.name));
            drawn.insert(tensor.name.clone(), Drawn { elements, key, table });
        }
        let tables = draws.iter().map(|draw| table(&bell, draw)).collect();
        Self { tensors: drawn, tables }
    }

    /// Elements `first` and on of a tensor, as bf16, little endian, until `out` is full.
    ///
    /// # Panics
    ///
    /// When there is no such tensor, or it has fewer elements: a bug of the caller.
    pub fn fill(&self, tensor: &str, first: u64, out: &mut [u8]) {
        let Some(drawn) = self.tensors.get(tensor) else {
            panic!("broken invariant `weights.known`: no tensor `{tensor}` in the model")
        };
        let count = (out.len() / 2) as u64;
        assert!(
            out.len().is_multiple_of(2)
                && first <= drawn.elements
                && count <= drawn.elements - first,
            "broken invariant `weights.inside`: {count} elements at {first} of `{tensor}`, which has {}",
            drawn.elements
        );
        let table = &self.tables[drawn.table];
        // Up to three elements of a number that began before `first`, then whole numbers.
        let head = (first.next_multiple_of(LANES) - first).min(count) as usize * 2;
        let (head, rest) = out.split_at_mut(head);
        let quad = |number: u64| values(table, mix(drawn.key.wrapping_add(number)));
        let skipped = (first % LANES) as usize * 2;
        head.copy_from_slice(&quad(first / LANES)[skipped..][..head.len()]);
        let mut number = first.div_ceil(LANES);
        let mut chunks = rest.chunks_exact_mut(2 * LANES as usize);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&quad(number));
            number += 1;
        }
        let tail = chunks.into_remainder();
        tail.copy_from_slice(&quad(number)[..tail.len()]);
    }
}

/// Four elements, each of 12 bits of its own quarter of `number`.
fn values(table: &Table, number: u64) -> [u8; 2 * LANES as usize] {
    let mut bytes = [0; 2 * LANES as usize];
    for (lane, pair) in bytes.chunks_exact_mut(2).enumerate() {
        let index = (number >> (16 * lane)) as usize & (table.len() - 1);
        pair.copy_from_slice(&table[index].to_le_bytes());
    }
    bytes
}

/// `splitmix64`'s finisher: every bit of the result depends on every bit of `counter`.
fn mix(counter: u64) -> u64 {
    let x = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Where a tensor's counter starts.
fn key(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)))
}

/// A bell of mean 0 and deviation 1, in 4,096 equally likely values that ascend.
///
/// Tukey's lambda distribution with 1/8 in place of the 0.135 that is nearest to the normal one:
/// its quantiles need only square roots, which are the same on every machine.
fn bell() -> Vec<f64> {
    let count = 1u32 << BITS;
    let eighth = |x: f64| x.sqrt().sqrt().sqrt();
    let raw: Vec<f64> = (0..count)
        .map(|i| (f64::from(i) + 0.5) / f64::from(count))
        .map(|share| eighth(share) - eighth(1.0 - share))
        .collect();
    let variance = raw.iter().map(|x| x * x).sum::<f64>() / f64::from(count);
    raw.iter().map(|x| x / variance.sqrt()).collect()
}

fn table(bell: &[f64], draw: &Draw) -> Table {
    let values: Vec<bf16> =
        bell.iter().map(|x| bf16::from_f64(draw.mean + draw.deviation * x)).collect();
    values.into_boxed_slice().try_into().expect("the bell has as many values as a table")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Vec<Tensor> {
        let tensor = |name: &str, dims: &[u64], draw| Tensor {
            name: name.to_owned(),
            dims: dims.iter().map(|&size| (size, "")).collect(),
            draw,
        };
        vec![
            tensor("a", &[64, 1023], Draw::product(1023, 1.0)),
            tensor("b", &[64, 1023], Draw::product(1023, 1.0)),
            tensor("norm", &[4096], Draw::NORM),
        ]
    }

    fn all(weights: &RandomWeights, name: &str, elements: usize) -> Vec<u8> {
        let mut out = vec![0; elements * 2];
        weights.fill(name, 0, &mut out);
        out
    }

    fn numbers(bytes: &[u8]) -> Vec<f64> {
        bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
    }

    #[test]
    fn any_run_of_elements_is_the_same_as_in_the_whole() {
        let weights = RandomWeights::new(7, &tensors());
        let whole = all(&weights, "a", 64 * 1023);
        for (first, count) in
            [(0, 1), (1, 1), (1, 2), (1, 3), (3, 9), (1023, 1023), (5, 0), (65_469, 3)]
        {
            let mut part = vec![0xaa; count * 2];
            weights.fill("a", first as u64, &mut part);
            assert_eq!(part, whole[first * 2..][..count * 2], "{count} elements at {first}");
        }
    }

    #[test]
    fn seed_and_name_change_every_tensor() {
        let (one, two) = (RandomWeights::new(1, &tensors()), RandomWeights::new(2, &tensors()));
        let a = numbers(&all(&one, "a", 64 * 1023));
        for other in [all(&two, "a", 64 * 1023), all(&one, "b", 64 * 1023)] {
            let other = numbers(&other);
            let dot: f64 = a.iter().zip(&other).map(|(x, y)| x * y).sum();
            let norms: f64 = a.iter().map(|x| x * x).sum();
            assert!((dot / norms).abs() < 0.02, "correlated by {}", dot / norms);
        }
    }

    #[test]
    fn spreads_are_those_asked_for() {
        let weights = RandomWeights::new(3, &tensors());
        for (name, elements, mean, deviation) in
            [("a", 64 * 1023, 0.0, 1023f64.powf(-0.5)), ("norm", 4096, 1.0, 0.2)]
        {
            let x = numbers(&all(&weights, name, elements));
            let found = x.iter().sum::<f64>() / x.len() as f64;
            let spread =
                (x.iter().map(|v| (v - found).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
            assert!((found - mean).abs() < 4.0 * deviation / (elements as f64).sqrt(), "{found}");
            assert!((spread / deviation - 1.0).abs() < 0.05, "{spread}");
        }
    }

    /// Recorded once: artifacts of random weights must stay comparable across machines and versions.
    #[test]
    fn the_first_values_never_change() {
        let weights = RandomWeights::new(1, &tensors());
        let bytes = all(&weights, "norm", 4);
        expect_test::expect!["[88, 3f, 64, 3f, 83, 3f, 1b, 3f]"]
            .assert_eq(&format!("{bytes:02x?}"));
    }
}
