//! Pillow's bicubic resize, bit for bit (versions up to 12.1; see [`super::tiles`]).
//!
//! Two passes through bytes: each row to its new width, then each column to its new height. An
//! output is a weighted sum of the inputs under the filter, whose support grows when shrinking
//! (so that nothing is skipped). Weights are f64, normalised, then rounded half away from zero to
//! 22 fractional bits; sums are i32 from one half, shifted right by 22 and clamped to a byte. A
//! pass whose size does not change is left out.

use super::Rgb;

/// Fractional bits of a weight: 32, less 8 of a byte, less 2 for overshoot and sign.
const FRACTION: u32 = 22;
/// Cubic convolution with a = -1/2 reaches two inputs to each side.
const SUPPORT: f64 = 2.0;

/// `picture` at another size; the aspect ratio is the caller's business.
pub(super) fn bicubic(picture: &Rgb, width: u32, height: u32) -> Rgb {
    let mut bytes = None;
    if width != picture.width {
        bytes = Some(horizontal(picture, width));
    }
    if height != picture.height {
        let input = bytes.as_deref().unwrap_or(&picture.bytes);
        bytes = Some(vertical(input, picture.height, 3 * width as usize, height));
    }
    Rgb { width, height, bytes: bytes.unwrap_or_else(|| picture.bytes.clone()) }
}

/// `[height, in, 3]` → `[height, width, 3]`.
fn horizontal(picture: &Rgb, width: u32) -> Vec<u8> {
    let filter = Filter::new(picture.width, width);
    let mut out = Vec::with_capacity(3 * width as usize * picture.height as usize);
    for row in picture.bytes.chunks_exact(3 * picture.width as usize) {
        for (first, weights) in filter.outputs() {
            let mut sums = [1i32 << (FRACTION - 1); 3];
            let pixels = row[3 * first..3 * (first + weights.len())].chunks_exact(3);
            for (&weight, pixel) in weights.iter().zip(pixels) {
                sums[0] += weight * i32::from(pixel[0]);
                sums[1] += weight * i32::from(pixel[1]);
                sums[2] += weight * i32::from(pixel[2]);
            }
            out.extend(sums.map(to_byte));
        }
    }
    out
}

/// `[in, stride]` → `[height, stride]`.
fn vertical(input: &[u8], in_height: u32, stride: usize, height: u32) -> Vec<u8> {
    let filter = Filter::new(in_height, height);
    let mut out = Vec::with_capacity(stride * height as usize);
    let mut sums = vec![0i32; stride];
    for (first, weights) in filter.outputs() {
        sums.fill(1 << (FRACTION - 1));
        let rows = input[stride * first..].chunks_exact(stride);
        for (&weight, row) in weights.iter().zip(rows) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(byte);
            }
        }
        out.extend(sums.iter().copied().map(to_byte));
    }
    out
}

fn to_byte(sum: i32) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// For each output along one axis: the first input it reads and the weights from there on.
struct Filter {
    /// First input, and where its weights end in `weights`.
    spans: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Filter {
    fn new(inputs: u32, outputs: u32) -> Self {
        let scale = f64::from(inputs) / f64::from(outputs);
        let stretch = scale.max(1.0);
        let reach = SUPPORT * stretch;
        let mut filter = Self { spans: Vec::with_capacity(outputs as usize), weights: Vec::new() };
        let mut exact = Vec::new();
        for output in 0..outputs {
            let center = (f64::from(output) + 0.5) * scale;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(inputs as usize);
            let inverse = 1.0 / stretch;
            exact.clear();
            exact.extend((first..end).map(|input| cubic((input as f64 - center + 0.5) * inverse)));
            let total: f64 = exact.iter().sum();
            filter.weights.extend(exact.iter().map(|weight| to_fixed(weight / total)));
            filter.spans.push((first, filter.weights.len()));
        }
        filter
    }

    fn outputs(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut start = 0;
        self.spans.iter().map(move |&(first, end)| {
            let weights = &self.weights[start..end];
            start = end;
            (first, weights)
        })
    }
}

/// The cubic convolution kernel with a = -1/2.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Round half away from zero.
fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << FRACTION);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}
