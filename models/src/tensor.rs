//! A tensor that a model reads: its name, its shape and why it has it, and how to draw it at random.

use std::fmt::Write;

/// One tensor of a checkpoint as the spec implies it; its elements are bf16.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The checkpoint's own name, the only naming scheme there is.
    pub name: String,
    /// Outermost first, each with the key of `config.json` it comes from (empty: always this).
    pub dims: Vec<(u64, &'static str)>,
    pub draw: Draw,
}

/// What random values a tensor gets, so that activations and logits keep a natural spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    pub mean: f64,
    /// Standard deviation; the values are bell-shaped and end at 3.7 of it.
    pub deviation: f64,
}

impl Draw {
    /// A norm's weight: near one.
    pub const NORM: Self = Self { mean: 1.0, deviation: 0.2 };
    /// A bias: near zero.
    pub const BIAS: Self = Self { mean: 0.0, deviation: 0.1 };
    /// Embeddings of tokens and positions.
    pub const EMBEDDING: Self = Self { mean: 0.0, deviation: 0.5 };

    /// A product of `inputs` terms whose result has about `gain` times the spread of its input.
    pub fn product(inputs: u64, gain: f64) -> Self {
        Self { mean: 0.0, deviation: gain / (inputs as f64).sqrt() }
    }
}

impl Tensor {
    /// Sizes, outermost first.
    pub fn shape(&self) -> Vec<u64> {
        self.dims.iter().map(|&(size, _)| size).collect()
    }

    /// Number of rows and elements of each: a row is one index of the first dimension that is
    /// not 1, so `[1, 1024, 1536]` has 1,024 rows and `[1536]` has 1,536 of one element.
    pub fn rows(&self) -> (u64, u64) {
        let mut sizes = self.dims.iter().map(|&(size, _)| size).skip_while(|&size| size == 1);
        (sizes.next().unwrap_or(1), sizes.product())
    }

    /// Bytes of all elements. The spec's bounds keep this below 2^64.
    pub fn bytes(&self) -> u64 {
        self.dims.iter().map(|&(size, _)| size).product::<u64>() * 2
    }

    /// The keys that give the shape, as a clause: "`a` is 1 and `b` is 2".
    pub fn because(&self) -> String {
        let mut text = String::new();
        for (size, key) in self.dims.iter().filter(|(_, key)| !key.is_empty()) {
            let and = if text.is_empty() { "" } else { " and " };
            write!(text, "{and}{key} is {size}").expect("writing to a string cannot fail");
        }
        text
    }
}
