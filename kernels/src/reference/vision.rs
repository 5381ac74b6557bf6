//! Meanings of the vision tower's own ops: patches, the patch embedding, the pixel shuffle.

use super::product::product_bias;
use super::{LayerNorm, Rounding, add_positions, layer_norm, linear_bias_gelu, rms_norm, rows_of};

/// Sizes of one image tile: `[channels, size, size]` pixels cut into patches of `patch²` pixels.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    pub channels: usize,
    pub size: usize,
    pub patch: usize,
}

impl Picture {
    /// Patches of a tile.
    #[must_use]
    pub fn patches(self) -> usize {
        (self.size / self.patch).pow(2)
    }
}

/// `[n, c, s, s]` pixels to `[n, p, c·patch²]`: a row per patch in reading order, its values in
/// the order (channel, dy, dx). Rounds nothing.
#[must_use]
pub fn patches(pixels: &[f64], picture: Picture) -> Vec<f64> {
    let Picture { channels, size, patch } = picture;
    assert_eq!(size % patch, 0, "a tile is whole patches");
    let grid = size / patch;
    let mut rows = Vec::with_capacity(pixels.len());
    for tile in 0..rows_of(pixels, channels * size * size) {
        for (top, left) in cells(grid) {
            for channel in 0..channels {
                for dy in 0..patch {
                    let y = (tile * channels + channel) * size + top * patch + dy;
                    rows.extend_from_slice(&pixels[y * size + left * patch..][..patch]);
                }
            }
        }
    }
    rows
}

/// What [`patch_embed`] reads besides the pixels.
#[derive(Debug, Clone, Copy)]
pub struct PatchEmbed<'a> {
    /// `[d, c·patch²]`
    pub weight: &'a [f64],
    /// `[d]`
    pub bias: &'a [f64],
    /// `[d]`
    pub norm: &'a [f64],
    /// `[p, d]`
    pub positions: &'a [f64],
    pub eps: f64,
}

/// Pixels to the rows the first block reads: `rms_norm(patches · weightᵀ + bias) + positions`.
///
/// The product with its bias stays unrounded; then as [`rms_norm`] and [`add_positions`] round.
#[must_use]
pub fn patch_embed(
    pixels: &[f64],
    picture: Picture,
    embed: &PatchEmbed<'_>,
    rounding: Rounding,
) -> Vec<f64> {
    let x = product_bias(&patches(pixels, picture), embed.weight, embed.bias);
    let normal = rms_norm(&x, embed.norm, embed.eps, rounding);
    add_positions(&normal, embed.positions, rounding)
}

/// 2×2 neighbours into one row: `[n, p, d]` to `[n, p/4, 4·d]`, `p` a square grid of even side.
///
/// Output (Y, X) holds inputs (2Y, 2X), (2Y, 2X+1), (2Y+1, 2X), (2Y+1, 2X+1). Rounds nothing.
#[must_use]
pub fn pixel_shuffle(x: &[f64], patches: usize, width: usize) -> Vec<f64> {
    let grid = patches.isqrt();
    assert!(
        grid * grid == patches && grid.is_multiple_of(2),
        "{patches} patches are no even square"
    );
    let mut y = Vec::with_capacity(x.len());
    for tile in 0..rows_of(x, patches * width) {
        for (row, column) in cells(grid / 2) {
            for (dy, dx) in cells(2) {
                let at = tile * patches + (2 * row + dy) * grid + 2 * column + dx;
                y.extend_from_slice(&x[at * width..][..width]);
            }
        }
    }
    y
}

/// The adapter's first half: `gelu(layer_norm(pixel_shuffle(x)) · weightᵀ + bias)`, rounding as
/// [`layer_norm`] and [`linear_bias_gelu`] do.
#[must_use]
pub fn shuffle_norm_linear_gelu(
    x: &[f64],
    patches: usize,
    norm: &LayerNorm<'_>,
    weight_bias: [&[f64]; 2],
    rounding: Rounding,
) -> Vec<f64> {
    let x = pixel_shuffle(x, patches, norm.weight.len() / 4);
    let [weight, bias] = weight_bias;
    linear_bias_gelu(&layer_norm(&x, norm, rounding), weight, bias, rounding)
}

/// The cells of a square grid in reading order: (row, column).
fn cells(side: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..side).flat_map(move |row| (0..side).map(move |column| (row, column)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_read_in_the_order_channel_row_column() {
        // one tile, two channels of 4×4, patches of 2×2
        let pixels: Vec<f64> = (0..32).map(f64::from).collect();
        let rows = patches(&pixels, Picture { channels: 2, size: 4, patch: 2 });
        assert_eq!(rows[..8], [0.0, 1.0, 4.0, 5.0, 16.0, 17.0, 20.0, 21.0]);
        assert_eq!(rows[8..16], [2.0, 3.0, 6.0, 7.0, 18.0, 19.0, 22.0, 23.0]);
        assert_eq!(rows[24..], [10.0, 11.0, 14.0, 15.0, 26.0, 27.0, 30.0, 31.0]);
    }

    #[test]
    fn the_pixel_shuffle_joins_neighbours_row_by_row() {
        // two tiles of 4×4 patches, width 1
        let x: Vec<f64> = (0..32).map(f64::from).collect();
        let y = pixel_shuffle(&x, 16, 1);
        assert_eq!(y[..4], [0.0, 1.0, 4.0, 5.0]);
        assert_eq!(y[4..8], [2.0, 3.0, 6.0, 7.0]);
        assert_eq!(y[8..12], [8.0, 9.0, 12.0, 13.0]);
        assert_eq!(y[28..], [26.0, 27.0, 30.0, 31.0]);
    }

    #[test]
    fn the_patch_embedding_normalises_before_it_adds_positions() {
        let embed = PatchEmbed {
            weight: &[1.0, 0.0],
            bias: &[0.0, 4.0],
            norm: &[1.0, 1.0],
            positions: &[10.0, 20.0],
            eps: 0.0,
        };
        let picture = Picture { channels: 1, size: 1, patch: 1 };
        // (3, 4) has mean square 12.5
        let y = patch_embed(&[3.0], picture, &embed, Rounding::Exact);
        assert!((y[0] - 10.0 - 3.0 / 12.5f64.sqrt()).abs() < 1e-14);
        assert!((y[1] - 20.0 - 4.0 / 12.5f64.sqrt()).abs() < 1e-14);
    }

    #[test]
    fn the_patch_embedding_rounds_what_the_norm_gives() {
        // The norm gives about 1 + 2^-10, which rounds to 1; a position of -1 shows what is left.
        let embed = PatchEmbed {
            weight: &[1.0 + 2f64.powi(-9), 1.0],
            bias: &[0.0, 0.0],
            norm: &[1.0, 1.0],
            positions: &[-1.0, -1.0],
            eps: 0.0,
        };
        let picture = Picture { channels: 1, size: 1, patch: 1 };
        let exact = patch_embed(&[1.0], picture, &embed, Rounding::Exact);
        assert!(exact[0] > 2f64.powi(-11), "{exact:?}");
        assert_eq!(patch_embed(&[1.0], picture, &embed, Rounding::Bf16), [0.0, 0.0]);
    }

    #[test]
    fn the_adapter_shuffles_then_normalises() {
        let norm = LayerNorm { weight: &[1.0; 4], bias: &[0.0; 4], eps: 0.0 };
        let weight_bias: [&[f64]; 2] = [&[0.0, 0.0, 0.0, 1.0], &[0.0]];
        let x = [-1.0, -1.0, 1.0, 1.0];
        let y = shuffle_norm_linear_gelu(&x, 4, &norm, weight_bias, Rounding::Exact);
        assert!((y[0] - 0.841_344_746_068_543).abs() < 1e-12);
    }
}
