//! Turns a picture file into the image tiles a SAIL-VL2 vision tower reads.
//!
//! ```text
//! decode        JPEG, PNG or WebP → Rgb
//! tiles         Rgb → Tiles: the grid's tiles in row-major order, then the thumbnail
//! pixels_bf16   Tiles → normalised bf16, [n, 3, size, size]
//! ```
//!
//! The arithmetic is the published processor's, bit for bit: Pillow's bicubic filter as of the
//! checkpoints' release, and one table from (channel, byte) to bf16. Two things a user may expect
//! are *not* done, because the processor does not do them either: EXIF orientation is not applied,
//! and colour profiles are not followed. The conversion to RGB comes *before* the resize (alpha is
//! dropped, never blended), as the authors' evaluation does; the processor alone would resize
//! RGBA and palette pictures in their own mode.
//!
//! JPEG has no exact decoder: ours and libjpeg-turbo differ by up to 5 of 255 in pictures with
//! halved chroma. From the decoded pixels on, everything is exact.

mod decode;
mod error;
mod resize;
mod tiling;

use std::ops::Range;

use half::bf16;
use sail_ir::artifact::Tiling;

pub use decode::{MAX_PIXELS, MAX_SIDE, decode, dimensions};
pub use error::ImageError;
pub use tiling::{check, tiles_for, tokens_for};

use tiling::{Grid, grid};

/// A picture in memory: 8-bit RGB, row-major, no padding, at least one pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

impl Rgb {
    /// Wrap `bytes`, `[height, width, 3]`.
    ///
    /// Refuses a picture without pixels and one beyond [`MAX_SIDE`] or [`MAX_PIXELS`].
    ///
    /// # Panics
    ///
    /// When `bytes` is not `3 * width * height` long: the caller made both.
    pub fn new(width: u32, height: u32, bytes: Vec<u8>) -> Result<Self, ImageError> {
        decode::check_size(width, height)?;
        let expected = 3 * width as usize * height as usize;
        assert_eq!(bytes.len(), expected, "broken invariant `rgb.whole`: {width} by {height}");
        Ok(Self { width, height, bytes })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `[height, width, 3]`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The image tiles of one picture, `[n, size, size, 3]` bytes, ready to be normalised.
pub struct Tiles {
    size: u32,
    bytes: Vec<u8>,
    table: [[bf16; 256]; 3],
}

/// Cut a picture into image tiles the way SAIL-VL2's processor does.
///
/// The whole picture is squeezed to the grid whose ratio is nearest (its own is *not* kept) and
/// cut row by row; when the grid has more than one cell and the tiling asks for it, one more
/// tile follows: the whole picture squeezed to one tile (the thumbnail).
///
/// Bit-exact with Pillow 12.1 or older: bicubic, horizontal pass first, then vertical, through u8.
/// Pillow 12.2 and 12.3 go vertical first for pictures over 100 times as high as wide that shrink
/// in height (low bits differ there, nowhere else); 13 does so more often. Source:
/// `image_processing_sailvl.py`.
///
/// Refuses a tiling that makes no sense ([`check`]).
pub fn tiles(picture: &Rgb, tiling: &Tiling) -> Result<Tiles, ImageError> {
    check(tiling)?;
    let size = tiling.tile_size;
    let Grid { columns, rows } = grid(tiling, picture.width, picture.height);
    let count = tiles_for(tiling, picture.width, picture.height) as usize;

    let mut bytes = Vec::with_capacity(count * 3 * (size * size) as usize);
    let whole = resize::bicubic(picture, size * columns, size * rows);
    for row in 0..rows {
        for column in 0..columns {
            crop(&whole, column * size, row * size, size, &mut bytes);
        }
    }
    if tiling::has_thumbnail(tiling, columns * rows) {
        bytes.extend_from_slice(resize::bicubic(picture, size, size).bytes());
    }
    Ok(Tiles { size, bytes, table: tiling::normalised(tiling) })
}

impl Tiles {
    /// Tiles that were cut elsewhere: `bytes` is `[n, size, size, 3]` for the size of `tiling`.
    ///
    /// Refuses a tiling that makes no sense ([`check`]).
    ///
    /// # Panics
    ///
    /// When `bytes` is not whole tiles.
    pub fn of_bytes(bytes: Vec<u8>, tiling: &Tiling) -> Result<Self, ImageError> {
        check(tiling)?;
        let tile = 3 * tiling.tile_size as usize * tiling.tile_size as usize;
        assert_eq!(bytes.len() % tile, 0, "broken invariant `tiles.whole`: {} bytes", bytes.len());
        Ok(Self { size: tiling.tile_size, bytes, table: tiling::normalised(tiling) })
    }
}

/// Append the `size` by `size` pixels at (`left`, `top`).
fn crop(picture: &Rgb, left: u32, top: u32, size: u32, out: &mut Vec<u8>) {
    let stride = 3 * picture.width as usize;
    for y in top..top + size {
        let start = y as usize * stride + 3 * left as usize;
        out.extend_from_slice(&picture.bytes[start..start + 3 * size as usize]);
    }
}

impl Tiles {
    /// Number of image tiles, the thumbnail included.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.tile_values()
    }

    /// Values of one tile: `3 * size * size`.
    pub fn tile_values(&self) -> usize {
        3 * (self.size * self.size) as usize
    }

    /// `[n, size, size, 3]`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Write the normalised pixels of some of the tiles, `[tiles.len(), 3, size, size]`.
    ///
    /// Each value is `(byte / 255 - mean) / std` in f32, rounded to bf16 once.
    ///
    /// # Panics
    ///
    /// When `tiles` goes beyond [`Tiles::count`] or `out` is not that long.
    pub fn pixels_bf16(&self, tiles: Range<usize>, out: &mut [bf16]) {
        let values = self.tile_values();
        assert!(tiles.end <= self.count(), "broken invariant `tiles.inside`: {tiles:?}");
        assert_eq!(out.len(), tiles.len() * values, "broken invariant `tiles.room`: {tiles:?}");
        let bytes = &self.bytes[tiles.start * values..tiles.end * values];
        for (tile, planes) in bytes.chunks_exact(values).zip(out.chunks_exact_mut(values)) {
            for (channel, plane) in planes.chunks_exact_mut(values / 3).enumerate() {
                let table = &self.table[channel];
                for (value, pixel) in plane.iter_mut().zip(tile.chunks_exact(3)) {
                    *value = table[usize::from(pixel[channel])];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
