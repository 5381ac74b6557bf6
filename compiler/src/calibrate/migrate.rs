//! By which factors outliers of activations are moved into weights, and the weights with them.
//!
//! Channel `j` of a value is divided by `s = a^alpha / w^(1 - alpha)`: `a` is its greatest magnitude
//! when the model was at work, `w` that of column `j` of all products that read it. `s` is rounded to
//! a power of two: then nothing else is rounded, and in `bf16` every output keeps its bits.

use std::collections::BTreeMap;
use std::sync::Arc;

use half::bf16;
use sail_models::{ModelError, Weights};

use super::Calibration;
use super::moments::GROUP;
use crate::passes::smooth::Site;

/// Powers of two beyond which no channel is moved.
const MOST_POWER: f32 = 15.0;

/// Rows of a tensor that are read at once.
const ROWS_AT_ONCE: u64 = 256;

/// What becomes of the tensors of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Migration {
    folds: BTreeMap<String, Fold>,
    /// Each site, and its factors where its activations are known.
    moves: Vec<(Site, Option<Arc<Vec<f32>>>)>,
    /// The share that was asked for.
    alpha: Option<f32>,
}

/// What becomes of one tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fold {
    /// What each column is multiplied with.
    pub columns: Option<Arc<Vec<f32>>>,
    /// What each row is divided by.
    rows: Option<Arc<Vec<f32>>>,
}

impl Migration {
    /// Of `sites`, by what `calibration` says they read; sites that it does not know are left alone.
    pub fn new(
        sites: &[Site],
        calibration: &Calibration,
        weights: &Weights,
        alpha: f32,
    ) -> Result<Self, ModelError> {
        let mut folds: BTreeMap<String, Fold> = BTreeMap::new();
        let mut moves = Vec::new();
        for site in sites {
            let Some(moments) = calibration.input(&site.input) else {
                moves.push((site.clone(), None));
                continue;
            };
            let mut columns = vec![0.0; moments.width()];
            for path in &site.products {
                widen(&mut columns, weights, path)?;
            }
            let both = moments.most.iter().zip(&columns);
            let factors = Arc::new(both.map(|(a, w)| factor(*a, *w, alpha)).collect::<Vec<_>>());
            for path in &site.products {
                folds.entry(path.clone()).or_default().columns = Some(Arc::clone(&factors));
            }
            folds.entry(site.made_by.clone()).or_default().rows = Some(Arc::clone(&factors));
            moves.push((site.clone(), Some(factors)));
        }
        Ok(Self { folds, moves, alpha: Some(alpha) })
    }

    /// In words: of each site how many channels, by which factors, out of what, into what.
    #[must_use]
    pub fn explain(&self) -> String {
        let Some(alpha) = self.alpha else {
            return "no outliers are moved, as `--smooth` was not given\n".to_owned();
        };
        let known = self.moves.iter().filter(|(_, factors)| factors.is_some()).count();
        let all = self.moves.len();
        let mut text =
            format!("outliers moved by {alpha} of their width, of {known} of {all} values\n");
        for (Site { input, made_by, products }, factors) in &self.moves {
            let line = match factors {
                None => "left alone, because the calibration does not know it".to_owned(),
                Some(factors) => {
                    let (into, more) = (&products[0], products.len() - 1);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    format!("{}, out of `{made_by}`, into `{into}`{more}", range(factors))
                }
            };
            text += &format!("  {input}: {line}\n");
        }
        text
    }

    /// What becomes of the tensor at `path`, if anything does.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<&Fold> {
        self.folds.get(path)
    }
}

impl Fold {
    /// Change the bf16 values of row `row` of the tensor. Rounds nothing.
    pub fn apply(&self, row: u64, values: &mut [u8]) {
        let divisor = self.rows.as_ref().map_or(1.0, |rows| rows[row as usize]);
        for (column, bytes) in values.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let times = self.columns.as_ref().map_or(1.0, |columns| columns[column]);
            let value = bf16::from_le_bytes(*bytes).to_f32() * times / divisor;
            *bytes = bf16::from_f32(value).to_le_bytes();
        }
    }
}

/// Second moments of channels that were divided by `factors`; a square for each group of them.
pub fn divide(moments: &mut [Vec<f32>], factors: &[f32]) {
    for (square, factors) in moments.iter_mut().zip(factors.chunks(GROUP)) {
        for (line, one) in square.chunks_exact_mut(factors.len()).zip(factors) {
            for (moment, other) in line.iter_mut().zip(factors) {
                *moment /= one * other;
            }
        }
    }
}

/// Let `columns` be at least the magnitudes of the tensor at `path`.
fn widen(columns: &mut [f32], weights: &Weights, path: &str) -> Result<(), ModelError> {
    let tensor = weights.tensor(path);
    let (rows, width) =
        tensor.unwrap_or_else(|| panic!("broken invariant `link.known`: {path}")).rows();
    assert_eq!(width, columns.len() as u64, "a product meets what it reads");
    let mut buffer = vec![0; 2 * columns.len() * ROWS_AT_ONCE.min(rows) as usize];
    for first in (0..rows).step_by(ROWS_AT_ONCE as usize) {
        let count = ROWS_AT_ONCE.min(rows - first);
        let bytes = &mut buffer[..2 * columns.len() * count as usize];
        weights.rows(path, first, count, bytes)?;
        for row in bytes.chunks_exact(2 * columns.len()) {
            for (most, value) in columns.iter_mut().zip(row.as_chunks::<2>().0) {
                *most = most.max(bf16::from_le_bytes(*value).to_f32().abs());
            }
        }
    }
    Ok(())
}

/// `3 of 88 channels by 1/2 to 4`.
fn range(factors: &[f32]) -> String {
    let moved: Vec<f32> = factors.iter().copied().filter(|factor| *factor != 1.0).collect();
    let written = |factor: f32| match factor < 1.0 {
        true => format!("1/{}", 1.0 / factor),
        false => factor.to_string(),
    };
    let least = moved.iter().copied().reduce(f32::min);
    let most = moved.iter().copied().reduce(f32::max);
    let by = match (least, most) {
        (Some(least), Some(most)) if least == most => format!(" by {}", written(least)),
        (Some(least), Some(most)) => format!(" by {} to {}", written(least), written(most)),
        _ => String::new(),
    };
    format!("{} of {} channels{by}", moved.len(), factors.len())
}

/// The power of two nearest to `a^alpha / w^(1 - alpha)`; 1 where one of them was never seen.
fn factor(a: f32, w: f32, alpha: f32) -> f32 {
    let power = alpha * a.log2() - (1.0 - alpha) * w.log2();
    if power.is_finite() { power.round().clamp(-MOST_POWER, MOST_POWER).exp2() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_share_the_width_between_activation_and_weight() {
        assert_eq!(factor(64.0, 0.25, 0.5), 16.0); // 4 and 4 afterwards
        assert_eq!(factor(64.0, 0.25, 1.0), 64.0);
        assert_eq!(factor(0.0, 1.0, 0.5), 1.0);
        assert_eq!(factor(1.0, 0.0, 0.5), 1.0);
        assert_eq!(factor(1e30, 1e-30, 0.5), 32768.0);
    }

    #[test]
    fn factors_are_told_by_their_range() {
        assert_eq!(range(&[1.0, 1.0]), "0 of 2 channels");
        assert_eq!(range(&[1.0, 4.0]), "1 of 2 channels by 4");
        assert_eq!(range(&[0.25, 1.0, 4.0]), "2 of 3 channels by 1/4 to 4");
    }

    #[test]
    fn a_row_is_divided_and_its_columns_are_multiplied() {
        let fold =
            Fold { columns: Some(Arc::new(vec![4.0, 0.5])), rows: Some(Arc::new(vec![1.0, 2.0])) };
        let mut row: Vec<u8> =
            [3.0, -5.0].map(bf16::from_f32).iter().flat_map(|v| v.to_le_bytes()).collect();
        fold.apply(1, &mut row);
        let got: Vec<f32> =
            row.as_chunks::<2>().0.iter().map(|v| bf16::from_le_bytes(*v).to_f32()).collect();
        assert_eq!(got, [6.0, -1.25]);
    }
}
