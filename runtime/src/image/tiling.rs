//! How many image tiles a picture becomes, and which values its bytes become.

use half::bf16;
use sail_ir::artifact::Tiling;

use super::ImageError;
use super::decode::MAX_PIXELS;

/// Columns and rows of image tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub columns: u32,
    pub rows: u32,
}

/// Refuses tiles without pixels, an empty choice of grids, more than [`MAX_PIXELS`] pixels in the
/// largest grid or more tokens than can be counted, and means and deviations that give no numbers.
///
/// Everything below expects a tiling that passed.
pub fn check(tiling: &Tiling) -> Result<(), ImageError> {
    let Tiling { tile_size, min_tiles, max_tiles, thumbnail: _, tokens_per_tile, mean, std } =
        tiling;
    let refuse = |what: String| Err(ImageError::Tiling { what });
    if *tile_size == 0 || *tokens_per_tile == 0 {
        return refuse(format!("a tile has {tile_size} pixels, {tokens_per_tile} tokens"));
    }
    if *min_tiles == 0 || min_tiles > max_tiles {
        return refuse(format!("a grid has {min_tiles} to {max_tiles} tiles"));
    }
    let most = u64::from(*max_tiles) + 1;
    let pixels = u64::from(*tile_size).pow(2).checked_mul(most);
    if pixels.is_none_or(|pixels| pixels > MAX_PIXELS) {
        return refuse(format!("{max_tiles} tiles of {tile_size} by {tile_size} pixels"));
    }
    if most * u64::from(*tokens_per_tile) > u64::from(u32::MAX) {
        return refuse(format!("{max_tiles} tiles of {tokens_per_tile} tokens"));
    }
    let usable = |std: &f32| std.is_finite() && *std > 0.0;
    if !mean.iter().all(|mean| mean.is_finite()) || !std.iter().all(usable) {
        return refuse(format!("mean {mean:?}, deviation {std:?}"));
    }
    Ok(())
}

/// The grid whose ratio of columns to rows is nearest to that of the picture.
///
/// Grids are tried from few cells to many. Of two that are equally near, the later one wins when
/// the picture has more than half of the pixels the later one would have.
pub(super) fn grid(tiling: &Tiling, width: u32, height: u32) -> Grid {
    let ratio = f64::from(width) / f64::from(height);
    let area = f64::from(width) * f64::from(height);
    let half_tile = 0.5 * f64::from(tiling.tile_size) * f64::from(tiling.tile_size);

    let mut best = Grid { columns: 1, rows: 1 };
    let mut nearest = f64::INFINITY;
    for cells in tiling.min_tiles..=tiling.max_tiles {
        for columns in (1..=cells).filter(|columns| cells % columns == 0) {
            let rows = cells / columns;
            let distance = (ratio - f64::from(columns) / f64::from(rows)).abs();
            let large = area > half_tile * f64::from(columns) * f64::from(rows);
            if distance < nearest || (distance == nearest && large) {
                nearest = distance;
                best = Grid { columns, rows };
            }
        }
    }
    best
}

/// Image tiles of a picture of this size, the thumbnail included; nothing is decoded.
pub fn tiles_for(tiling: &Tiling, width: u32, height: u32) -> u32 {
    let Grid { columns, rows } = grid(tiling, width, height);
    columns * rows + u32::from(has_thumbnail(tiling, columns * rows))
}

/// Places of the prompt that a picture of this size fills; nothing is decoded.
pub fn tokens_for(tiling: &Tiling, width: u32, height: u32) -> u32 {
    tiles_for(tiling, width, height) * tiling.tokens_per_tile
}

pub(super) fn has_thumbnail(tiling: &Tiling, cells: u32) -> bool {
    tiling.thumbnail && cells != 1
}

/// The normalised value of every byte of every channel.
///
/// f32 throughout, in the order the processor computes, then one rounding to bf16.
pub(super) fn normalised(tiling: &Tiling) -> [[bf16; 256]; 3] {
    std::array::from_fn(|channel| {
        std::array::from_fn(|byte| {
            let value = byte as f32 / 255.0;
            bf16::from_f32((value - tiling.mean[channel]) / tiling.std[channel])
        })
    })
}
