//! Scheme `int4` on the host: groups of 128 along K, each with the scale and zero point that come
//! nearest to its values.

use half::bf16;
use sail_ir::scheme::Scheme;

use super::sensitivity::{Group, Sensitivity};
use super::{Loss, NotFinite, squares, values_of};

const GROUP: usize = Scheme::GROUP as usize;
/// Greatest nibble.
const MOST: f32 = 15.0;
/// By how much of its whole range a group is tried to be cut: rounding all values a little better
/// may outweigh the few at the ends.
const RANGES: [f32; 6] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75];

/// Grids of a group that are tried to the end where errors do not all matter alike.
const FINALISTS: usize = 3;

/// How a group is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// A bf16 value.
    scale: f32,
    /// 0 to 15.
    zero: f32,
}

/// Pack one panel; see [`super::pack_panel`].
pub(super) fn pack(
    k: usize,
    rows: &[Option<&[u8]>],
    sensitivity: Option<&Sensitivity>,
    out: &mut [u8],
) -> Result<Loss, NotFinite> {
    out.fill(0);
    let mut loss = Loss::default();
    let width = rows.len();
    for (output, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let values = values_of(k, row, output)?;
        let mut rest = &mut *out;
        for (index, group) in values.chunks(GROUP).enumerate() {
            let nibbles = group.len().next_multiple_of(4) / 2 * width;
            let (here, after) = rest.split_at_mut(nibbles + 4 * width);
            rest = after;
            let mut stored = [0.0; GROUP];
            let stored = &mut stored[..group.len()];
            let grid = grid_of(index, group, sensitivity, stored);
            put(grid, stored, (output, width), here);
            loss += Loss::of(group, stored);
        }
    }
    Ok(loss)
}

/// The grid of group number `index` of a row and, in `stored`, its values as they come back.
pub(super) fn grid_of(
    index: usize,
    group: &[f32],
    sensitivity: Option<&Sensitivity>,
    stored: &mut [f32],
) -> Grid {
    match sensitivity {
        None => round(group, stored),
        Some(sensitivity) => round_by(sensitivity.group(index), group, stored),
    }
}

/// The best grid of a group and, in `stored`, the points of it that are nearest.
fn round(group: &[f32], stored: &mut [f32]) -> Grid {
    let [grid, ..] = Grid::best(group, |grid| grid.error(group));
    for (stored, value) in stored.iter_mut().zip(group) {
        *stored = grid.stored(*value);
    }
    grid
}

/// The same where errors do not all matter alike: of the grids that look best by the mean squares
/// of the channels, the one that loses least when later values make up for earlier ones.
fn round_by(sensitivity: &Group, group: &[f32], stored: &mut [f32]) -> Grid {
    let squares = sensitivity.squares();
    let grids = Grid::best(group, |grid| grid.weighted_error(group, squares));
    let mut least = f32::INFINITY;
    let mut best = grids[0];
    let mut tried = [0.0; GROUP];
    for grid in grids {
        let tried = &mut tried[..group.len()];
        tried.copy_from_slice(group);
        let lost = sensitivity.round(tried, |value| grid.stored(value));
        if lost < least {
            (best, least) = (grid, lost);
            stored.copy_from_slice(tried);
        }
    }
    best
}

/// Put the nibbles of a group, whose values are points of its grid, and its word where they belong.
fn put(grid: Grid, stored: &[f32], (output, width): (usize, usize), out: &mut [u8]) {
    let half = width / 2;
    let shift = if output < half { 0 } else { 4 };
    let words = out.len() - 4 * width;
    let (nibbles, words) = out.split_at_mut(words);
    let places = nibbles[4 * (output % half)..].chunks_mut(2 * width);
    for (quad, place) in stored.chunks(4).zip(places) {
        for (at, byte) in place[..4].iter_mut().enumerate() {
            let nibble = quad.get(at).map_or(grid.zero, |value| grid.nibble(*value));
            *byte |= (nibble as u8) << shift;
        }
    }
    words[4 * output..][..4].copy_from_slice(&grid.word().to_le_bytes());
}

impl Grid {
    /// The grids with the least `error`, the best first.
    fn best(group: &[f32], error: impl Fn(Self) -> f32) -> [Self; FINALISTS] {
        let (low, high) = group
            .iter()
            .fold((0.0_f32, 0.0_f32), |(low, high), value| (low.min(*value), high.max(*value)));
        let mut best = [(f32::INFINITY, Self { scale: 0.0, zero: 0.0 }); FINALISTS];
        for range in RANGES {
            for grid in [Self::between(low * range, high * range), Self::around(low, high, range)] {
                let error = error(grid);
                let place = best.partition_point(|(least, _)| *least <= error);
                if place < FINALISTS {
                    best[place..].rotate_right(1);
                    best[place] = (error, grid);
                }
            }
        }
        best.map(|(_, grid)| grid)
    }

    /// From `low` to `high`, zero being a point of it.
    fn between(low: f32, high: f32) -> Self {
        let scale = step((high - low) / MOST);
        let zero = if scale == 0.0 { 0.0 } else { nearest(-low / scale) };
        Self { scale, zero }
    }

    /// Zero in the middle, one step more on the side of the greater magnitude.
    fn around(low: f32, high: f32, range: f32) -> Self {
        let greatest = if -low > high { low } else { high };
        let zero = if greatest > 0.0 { 7.0 } else { 8.0 };
        Self { scale: step(greatest.abs() * range / 8.0), zero }
    }

    /// The code of a value.
    pub(super) fn code(self, value: f32) -> u8 {
        self.nibble(value) as u8
    }

    /// The zero point in the low byte, the scale in the upper half.
    pub(super) fn word(self) -> u32 {
        self.scale.to_bits() | self.zero as u32
    }

    fn nibble(self, value: f32) -> f32 {
        nearest(value * self.inverse() + self.zero)
    }

    fn inverse(self) -> f32 {
        if self.scale == 0.0 { 0.0 } else { 1.0 / self.scale }
    }

    /// What a value comes back as.
    fn stored(self, value: f32) -> f32 {
        (self.nibble(value) - self.zero) * self.scale
    }

    /// The sum of squared errors.
    fn error(self, group: &[f32]) -> f32 {
        let inverse = self.inverse();
        squares(group, |value| {
            (nearest(value * inverse + self.zero) - self.zero) * self.scale - value
        })
    }

    /// The same, each error as often as its weight says.
    fn weighted_error(self, group: &[f32], weights: &[f32]) -> f32 {
        let errors = group.iter().map(|value| self.stored(*value) - value);
        errors.zip(weights).map(|(error, weight)| error * error * weight).sum()
    }
}

/// The nearest nibble, ties to even.
///
/// Adding a number whose last place is 1 rounds on any processor, many values at once.
fn nearest(value: f32) -> f32 {
    const ONES: f32 = (3 << 22) as f32;
    (value.clamp(0.0, MOST) + ONES) - ONES
}

/// In bf16; 0 for one so small that nothing can be divided by it.
fn step(value: f32) -> f32 {
    let scale = bf16::from_f32(value).to_f32();
    if (1.0 / scale).is_finite() { scale } else { 0.0 }
}

/// The values of row `output` of a packed panel of `width` outputs, as products take them.
#[must_use]
pub fn unpack(k: usize, panel: &[u8], width: usize, output: usize) -> Vec<f64> {
    let half = width / 2;
    let shift = if output < half { 0 } else { 4 };
    let mut values = Vec::with_capacity(k);
    let mut rest = panel;
    while values.len() < k {
        let length = (k - values.len()).min(GROUP);
        let (nibbles, after) = rest.split_at(length.next_multiple_of(4) / 2 * width);
        let (words, after) = after.split_at(4 * width);
        rest = after;
        let word = words[4 * output..][..4].try_into().expect("four bytes");
        let word = u32::from_le_bytes(word);
        let scale = f64::from(f32::from_bits(word & 0xffff_0000));
        let zero = i32::try_from(word & 0xff).expect("a byte");
        let places = nibbles[4 * (output % half)..].chunks(2 * width);
        let bytes = places.flat_map(|place| &place[..4]).take(length);
        values.extend(bytes.map(|byte| f64::from(i32::from(byte >> shift & 15) - zero) * scale));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::run::{bf16_bytes, random};

    #[test]
    fn a_value_comes_back_within_a_step_of_its_group_also_in_a_short_one() {
        for k in [1_usize, 6, 128, 133, 300] {
            let rows: Vec<Vec<u8>> = (0..4).map(|row| bf16_bytes(&random(row + 3, k))).collect();
            let given = [Some(&rows[0][..]), Some(&rows[1][..]), None, Some(&rows[2][..])];
            let bytes = Scheme::Int4.packed_bytes(4, k as u64, 4);
            let mut panel = vec![0xff; bytes as usize];
            pack(k, &given, None, &mut panel).unwrap();
            for (output, row) in given.iter().enumerate() {
                let got = unpack(k, &panel, 4, output);
                let want = row.map_or(vec![0.0; k], |row| values_of(k, row, output).unwrap());
                let groups = got.chunks(GROUP).zip(want.chunks(GROUP));
                for (got, want) in groups {
                    let squares: f64 = want.iter().map(|v| f64::from(*v).powi(2)).sum();
                    let errors: f64 =
                        got.iter().zip(want).map(|(g, w)| (g - f64::from(*w)).powi(2)).sum();
                    // 15 steps over a range of 2: an error of step / sqrt 12 against one of 1 / sqrt 3.
                    assert!(errors <= squares * 0.006, "k {k}: {errors} of {squares}");
                }
            }
        }
    }

    #[test]
    fn a_group_on_one_side_of_zero_uses_all_sixteen_points() {
        let of = |values: &[f32]| Grid::best(values, |grid| grid.error(values))[0];
        let values: Vec<f32> = (0..16).map(|point| point as f32 * 0.5).collect();
        assert_eq!(of(&values), Grid { scale: 0.5, zero: 0.0 });
        let mirrored: Vec<f32> = values.iter().map(|value| -value).collect();
        assert_eq!(of(&mirrored), Grid { scale: 0.5, zero: 15.0 });
        assert_eq!(of(&[0.0; 8]), Grid { scale: 0.0, zero: 0.0 });
        let least = f32::from(bf16::MIN_POSITIVE_SUBNORMAL);
        let tiny = of(&[0.0, least, -least]);
        assert_eq!((tiny.scale, tiny.error(&[0.0, least])), (0.0, 0.0));
    }
}
