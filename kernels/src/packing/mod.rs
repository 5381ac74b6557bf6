//! From a checkpoint's tensors to the bytes product kernels read.
//!
//! A packed weight is a run of panels of `panel_width` outputs. Which row of which tensor an output
//! of a panel is follows from the join ([`Panels`]); how the values of a panel lie in memory follows
//! from the scheme ([`pack_panel`], bit layout in [`sail_ir::scheme::Scheme`]). Panels are packed
//! one by one, in any order or thread, so memory stays at one panel and its rows. CUDA targets have rows
//! instead ([`rows`]); which it is, is the target's [`Arrangement`].

pub mod bf16;
pub mod fill;
pub mod fp8;
pub mod int4;
pub mod int8;
pub mod rows;
pub mod sensitivity;

use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use sail_ir::scheme::Scheme;
use sail_ir::target::Target;

pub use sensitivity::Sensitivity;

/// How the outputs of a packed weight stand in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Panels of so many outputs, interleaved along K.
    Panels { width: u32 },
    /// Rows along K, in runs of [`rows::RUN`].
    Rows,
}

impl Arrangement {
    /// That of a target.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        match target.gpu() {
            Some(_) => Self::Rows,
            None => Self::Panels { width: target.limits().panel_width },
        }
    }

    /// Outputs that are packed together.
    #[must_use]
    pub const fn width(self) -> u32 {
        match self {
            Self::Panels { width } => width,
            Self::Rows => rows::RUN,
        }
    }
}

/// How the tensors at a weight's paths become one weight; see the op row `sail.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    One,
    Stack,
    Concat,
    Interleave,
    StackInterleave,
}

impl FromStr for Join {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "one" => Self::One,
            "stack" => Self::Stack,
            "concat" => Self::Concat,
            "interleave" => Self::Interleave,
            "stack_interleave" => Self::StackInterleave,
            _ => return Err(format!("unknown join `{text}`")),
        })
    }
}

/// Row `row` of the tensor at path number `path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    pub path: usize,
    pub row: u64,
}

/// The panels of one weight, in the order of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panels {
    join: Join,
    /// Rows of each path's tensor.
    rows: Vec<u64>,
    width: u64,
}

impl Panels {
    /// `rows` holds the number of rows of each path's tensor, read as `[rows, k]`.
    ///
    /// Refuses numbers of paths and unequal rows that the join does not allow.
    pub fn new(join: Join, rows: &[u64], panel_width: u32) -> Result<Self, String> {
        let equal = rows.windows(2).all(|pair| pair[0] == pair[1]);
        let fits = match join {
            Join::One => rows.len() == 1,
            Join::Concat => !rows.is_empty(),
            Join::Stack => !rows.is_empty() && equal,
            Join::Interleave => rows.len() == 2 && equal,
            Join::StackInterleave => !rows.is_empty() && rows.len().is_multiple_of(2) && equal,
        };
        if !fits {
            return Err(format!("tensors of {rows:?} rows cannot be joined as {join:?}"));
        }
        Ok(Self { join, rows: rows.to_vec(), width: u64::from(panel_width) })
    }

    /// Panels of the whole weight; of a stack, its parts one after the other.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.parts() * self.panels_per_part()
    }

    /// Bytes of the whole weight for rows of `k` values.
    #[must_use]
    pub fn bytes(&self, scheme: Scheme, k: u64) -> u64 {
        self.count() * scheme.packed_bytes(self.width, k, self.width)
    }

    /// The source of each of the `panel_width` outputs of a panel; `None` is a row of zeros.
    #[must_use]
    pub fn sources(&self, panel: u64) -> Vec<Option<Source>> {
        let part = (panel / self.panels_per_part()) as usize;
        let panel = panel % self.panels_per_part();
        (0..self.width).map(|output| self.source(part, panel, output)).collect()
    }

    fn source(&self, part: usize, panel: u64, output: u64) -> Option<Source> {
        let half = self.width / 2;
        let (path, row) = match self.join {
            Join::One | Join::Stack => (part, panel * self.width + output),
            Join::Concat => return self.concatenated(panel * self.width + output),
            Join::Interleave | Join::StackInterleave => {
                let is_up = output >= half;
                let path = part + if is_up { self.rows.len() / 2 } else { 0 };
                (path, panel * half + output % half)
            }
        };
        (row < self.rows[path]).then_some(Source { path, row })
    }

    fn concatenated(&self, mut row: u64) -> Option<Source> {
        for (path, rows) in self.rows.iter().enumerate() {
            if row < *rows {
                return Some(Source { path, row });
            }
            row -= rows;
        }
        None
    }

    /// Parts that begin at a panel of their own.
    fn parts(&self) -> u64 {
        match self.join {
            Join::One | Join::Concat | Join::Interleave => 1,
            Join::Stack => self.rows.len() as u64,
            Join::StackInterleave => self.rows.len() as u64 / 2,
        }
    }

    fn panels_per_part(&self) -> u64 {
        match self.join {
            Join::One | Join::Stack => self.rows[0].div_ceil(self.width),
            Join::Concat => self.rows.iter().sum::<u64>().div_ceil(self.width),
            Join::Interleave | Join::StackInterleave => self.rows[0].div_ceil(self.width / 2),
        }
    }
}

/// A value that no scheme of fewer bits can hold: infinite, or no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite {
    /// Output of the panel.
    pub output: usize,
    /// Place in its row.
    pub column: usize,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value at {} is not finite", self.column)
    }
}

/// What packing lost: sums over the checkpoint's values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Loss {
    /// Squares of the values.
    pub signal: f64,
    /// Squares of what they are changed by.
    pub noise: f64,
}

impl Loss {
    /// Of `values` that come back as `stored`.
    fn of(values: &[f32], stored: &[f32]) -> Self {
        let mut loss = Self::default();
        let mut errors = [0.0; SUMMED];
        for (values, stored) in values.chunks(SUMMED).zip(stored.chunks(SUMMED)) {
            let errors = &mut errors[..values.len()];
            for (error, (value, stored)) in errors.iter_mut().zip(values.iter().zip(stored)) {
                *error = stored - value;
            }
            loss.signal += f64::from(squares(values, |value| value));
            loss.noise += f64::from(squares(errors, |error| error));
        }
        loss
    }
}

impl AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.signal += other.signal;
        self.noise += other.noise;
    }
}

/// Squares that are summed in f32 before the sum goes to an f64.
const SUMMED: usize = 128;

/// The sum of squares of what `of` gives, in eight parts that go side by side.
fn squares(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    let square = |value: f32| {
        let part = of(value);
        part * part
    };
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += square(*value);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| square(*value)).sum::<f32>()
}

/// Pack one panel: `rows` are the panel's outputs in order, each the `k` bf16 values (little
/// endian) of a checkpoint's row, `None` a row of zeros; `out` takes `packed_bytes` of one panel.
/// What was lost; `bf16` loses nothing and sums nothing. `sensitivity` is of the channels that the
/// rows are multiplied with, where that is known: `int8` and `int4` round by it.
///
/// Refuses values that the scheme cannot hold; `bf16` holds all.
pub fn pack_panel(
    scheme: Scheme,
    k: usize,
    rows: &[Option<&[u8]>],
    sensitivity: Option<&Sensitivity>,
    out: &mut [u8],
) -> Result<Loss, NotFinite> {
    assert_eq!(
        out.len() as u64,
        scheme.packed_bytes(rows.len() as u64, k as u64, rows.len() as u64),
        "a panel has the bytes its scheme says"
    );
    match scheme {
        Scheme::Bf16 => {
            bf16::pack(k, rows, out);
            Ok(Loss::default())
        }
        Scheme::Int8 | Scheme::Int8Weight => int8::pack(k, rows, sensitivity, out),
        Scheme::Int4 => int4::pack(k, rows, sensitivity, out),
        Scheme::Fp8 => panic!("no target with panels has `fp8`"),
    }
}

/// The values of row `output` of a packed panel of `width` outputs, as products take them.
#[must_use]
pub fn unpack_row(scheme: Scheme, k: usize, panel: &[u8], width: usize, output: usize) -> Vec<f64> {
    match scheme {
        Scheme::Bf16 => {
            let row = bf16::unpack(k, panel, width, output);
            let values = values_of(k, &row, output).expect("what was packed is finite");
            values.into_iter().map(f64::from).collect()
        }
        Scheme::Int8 | Scheme::Int8Weight => int8::unpack(k, panel, width, output),
        Scheme::Int4 => int4::unpack(k, panel, width, output),
        Scheme::Fp8 => panic!("no target with panels has `fp8`"),
    }
}

/// A row's values as they come back: each the nearest there is, or, where it is known how much
/// errors matter, so that later values of a group make up for those of earlier ones.
fn rounded(
    values: &[f32],
    sensitivity: Option<&Sensitivity>,
    nearest: impl Fn(f32) -> f32,
) -> Vec<f32> {
    let Some(sensitivity) = sensitivity else {
        return values.iter().copied().map(nearest).collect();
    };
    let mut stored = values.to_vec();
    for (index, group) in stored.chunks_mut(Scheme::GROUP as usize).enumerate() {
        sensitivity.group(index).round(group, &nearest);
    }
    stored
}

/// The bf16 values of a row as f32. Refuses one that is not finite.
fn values_of(k: usize, row: &[u8], output: usize) -> Result<Vec<f32>, NotFinite> {
    assert_eq!(row.len(), 2 * k, "a row has `k` values of two bytes");
    let pairs = row.chunks_exact(2).map(|pair| half::bf16::from_le_bytes([pair[0], pair[1]]));
    let values: Vec<f32> = pairs.map(half::bf16::to_f32).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(column) => Err(NotFinite { output, column }),
    }
}

/// A whole weight of `[n, k]` bf16 rows as one path, packed; for tests and benchmarks.
#[must_use]
pub fn pack_whole(
    scheme: Scheme,
    join: Join,
    paths: &[(&[u8], u64)],
    k: usize,
    panel_width: u32,
) -> Vec<u8> {
    let rows: Vec<u64> = paths.iter().map(|(_, rows)| *rows).collect();
    let panels = Panels::new(join, &rows, panel_width).expect("paths that can be joined");
    let mut packed = vec![0; panels.bytes(scheme, k as u64) as usize];
    let panel_bytes = packed.len() / panels.count() as usize;
    for (panel, out) in packed.chunks_exact_mut(panel_bytes).enumerate() {
        let rows: Vec<Option<&[u8]>> = panels
            .sources(panel as u64)
            .iter()
            .map(|source| {
                source.map(|Source { path, row }| {
                    &paths[path].0[row as usize * 2 * k..(row as usize + 1) * 2 * k]
                })
            })
            .collect();
        pack_panel(scheme, k, &rows, None, out).expect("finite values");
    }
    packed
}

/// The rows of each path of a weight packed by [`pack_whole`], as products take them: `[n, k]`
/// values a path.
#[must_use]
pub fn unpack_whole(
    scheme: Scheme,
    join: Join,
    (packed, rows): (&[u8], &[u64]),
    k: usize,
    panel_width: u32,
) -> Vec<Vec<f64>> {
    let panels = Panels::new(join, rows, panel_width).expect("paths that can be joined");
    let panel_bytes = packed.len() / panels.count() as usize;
    let mut paths: Vec<Vec<f64>> = rows.iter().map(|rows| vec![0.0; *rows as usize * k]).collect();
    for (panel, bytes) in packed.chunks_exact(panel_bytes).enumerate() {
        for (output, source) in panels.sources(panel as u64).into_iter().enumerate() {
            let Some(Source { path, row }) = source else { continue };
            let values = unpack_row(scheme, k, bytes, panel_width as usize, output);
            paths[path][row as usize * k..][..k].copy_from_slice(&values);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::run::{bf16_bytes, random};

    fn sources(join: Join, rows: &[u64], width: u32) -> Vec<Vec<Option<(usize, u64)>>> {
        let panels = Panels::new(join, rows, width).unwrap();
        (0..panels.count())
            .map(|panel| panels.sources(panel).iter().map(|s| s.map(|s| (s.path, s.row))).collect())
            .collect()
    }

    #[test]
    fn rows_of_several_paths_follow_one_another_in_a_concat() {
        let s = |path, row| Some((path, row));
        assert_eq!(
            sources(Join::Concat, &[3, 2], 4),
            [vec![s(0, 0), s(0, 1), s(0, 2), s(1, 0)], vec![s(1, 1), None, None, None]]
        );
    }

    #[test]
    fn each_part_of_a_stack_begins_a_panel() {
        let s = |path, row| Some((path, row));
        assert_eq!(
            sources(Join::Stack, &[3, 3], 4),
            [vec![s(0, 0), s(0, 1), s(0, 2), None], vec![s(1, 0), s(1, 1), s(1, 2), None]]
        );
    }

    #[test]
    fn gate_and_up_alternate_by_half_panels_padded_alike() {
        let s = |path, row| Some((path, row));
        assert_eq!(
            sources(Join::Interleave, &[3, 3], 4),
            [vec![s(0, 0), s(0, 1), s(1, 0), s(1, 1)], vec![s(0, 2), None, s(1, 2), None]]
        );
        assert_eq!(
            sources(Join::StackInterleave, &[2, 2, 2, 2], 4),
            [vec![s(0, 0), s(0, 1), s(2, 0), s(2, 1)], vec![s(1, 0), s(1, 1), s(3, 0), s(3, 1)]]
        );
    }

    #[test]
    fn what_is_lost_is_what_does_not_come_back() {
        let (k, width) = (300, 4);
        let rows: Vec<Vec<u8>> = (0..3).map(|row| bf16_bytes(&random(row + 5, k))).collect();
        let given = [Some(&rows[0][..]), None, Some(&rows[1][..]), Some(&rows[2][..])];
        for scheme in [Scheme::Int8, Scheme::Int4] {
            let mut panel = vec![0; scheme.packed_bytes(width, k as u64, width) as usize];
            let loss = pack_panel(scheme, k, &given, None, &mut panel).unwrap();
            let mut want = Loss::default();
            for (output, row) in given.iter().enumerate() {
                let Some(row) = row else { continue };
                let stored = unpack_row(scheme, k, &panel, width as usize, output);
                for (stored, value) in stored.iter().zip(values_of(k, row, output).unwrap()) {
                    let value = f64::from(value);
                    want += Loss { signal: value * value, noise: (stored - value).powi(2) };
                }
            }
            assert!(want.noise > 0.0);
            let near = |got: f64, want: f64| (got - want).abs() < 1e-5 * want;
            assert!(near(loss.signal, want.signal) && near(loss.noise, want.noise), "{loss:?}");
        }
        let mut panel = vec![0; Scheme::Bf16.packed_bytes(width, k as u64, width) as usize];
        assert_eq!(pack_panel(Scheme::Bf16, k, &given, None, &mut panel).unwrap(), Loss::default());
    }

    #[test]
    fn rounding_by_sensitivity_changes_outputs_less_for_what_was_read() {
        let (k, width) = (160, 2);
        let row = bf16_bytes(&random(3, k));
        let given = [Some(&row[..]), None];
        // Rows in which neighbours go together.
        let read: Vec<Vec<f32>> = (0..400)
            .map(|row| random(row + 100, k + 1).windows(2).map(|pair| pair[0] + pair[1]).collect())
            .collect();
        let moments = [0..128, 128..k].map(|group| {
            let pairs = group.clone().flat_map(|i| group.clone().map(move |j| (i, j)));
            let mean = |(i, j): (usize, usize)| -> f32 {
                read.iter().map(|row| row[i] * row[j]).sum::<f32>() / read.len() as f32
            };
            pairs.map(mean).collect()
        });
        let sensitivity = Sensitivity::new(&moments);
        let values = values_of(k, &row, 0).unwrap();
        for scheme in [Scheme::Int8, Scheme::Int4] {
            let [without, with] = [None, Some(&sensitivity)].map(|sensitivity| -> f64 {
                let mut panel = vec![0; scheme.packed_bytes(width, k as u64, width) as usize];
                pack_panel(scheme, k, &given, sensitivity, &mut panel).unwrap();
                let stored = unpack_row(scheme, k, &panel, width as usize, 0);
                let change = |read: &Vec<f32>| -> f64 {
                    let errors = stored.iter().zip(&values).map(|(one, v)| one - f64::from(*v));
                    errors.zip(read).map(|(error, x)| error * f64::from(*x)).sum()
                };
                read.iter().map(|read| change(read).powi(2)).sum()
            });
            assert!(with < 0.8 * without, "{scheme}: {with} of {without}");
        }
    }

    #[test]
    fn refuses_paths_that_do_not_join() {
        assert!(Panels::new(Join::One, &[3, 3], 4).is_err());
        assert!(Panels::new(Join::Interleave, &[3, 4], 4).is_err());
        assert!("sum".parse::<Join>().is_err());
    }
}
