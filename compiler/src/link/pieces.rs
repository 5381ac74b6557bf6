//! Pieces of the weights section: runs of panels or rows, each packed on its own.

use sail_ir::id::WeightId;
use sail_kernels::attention::rope_table;
use sail_kernels::packing::rows::pack_rows;
use sail_kernels::packing::{Arrangement, Loss, pack_panel};
use sail_models::{ModelError, Weights};

use super::finite;
use crate::calibrate::{Known, Sensitivities};
use crate::error::{CompileError, Failure, boxed};
use crate::plan::weights::{Packed, Source};

/// Bytes of a piece, about: enough to be worth a thread, little enough for several at once.
const PIECE_BYTES: u64 = 8 << 20;

/// A run of the bytes of one weight.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    pub weight: WeightId,
    source: &'a Source,
    /// Units: panels of all experts, rows of all paths, or positions.
    first: u64,
    count: u64,
    last: bool,
}

/// What a piece became.
#[derive(Debug, Default)]
pub struct Made {
    pub bytes: Vec<u8>,
    /// What comes behind the bytes of all pieces of the weight.
    pub behind: Vec<u8>,
    /// What packing lost.
    pub loss: Loss,
}

/// Why a piece has no bytes.
#[derive(Debug)]
pub enum Unpacked {
    /// The checkpoint can no longer be read.
    Checkpoint(ModelError),
    /// It holds a value that is not finite.
    NotFinite(CompileError),
}

impl From<ModelError> for Unpacked {
    fn from(error: ModelError) -> Self {
        Self::Checkpoint(error)
    }
}

impl From<Unpacked> for Failure {
    fn from(error: Unpacked) -> Self {
        match error {
            Unpacked::Checkpoint(error) => boxed(error),
            Unpacked::NotFinite(error) => boxed(error),
        }
    }
}

/// The pieces of one weight, in order.
pub fn of(weight: WeightId, source: &Source) -> Vec<Piece<'_>> {
    let (units, unit_bytes) = match source {
        Source::Packed(packed) => (packed.panels().count(), packed.panel_bytes()),
        Source::Plain { dims, .. } => (dims[0], dims[1..].iter().product::<u64>() * 2),
        Source::RopeTable { .. } | Source::Order(_) => (1, source.bytes()), // some megabytes at most
    };
    let per_piece = (PIECE_BYTES / unit_bytes.max(1)).max(1);
    (0..units.div_ceil(per_piece))
        .map(|index| {
            let first = index * per_piece;
            let count = per_piece.min(units - first);
            Piece { weight, source, first, count, last: first + count == units }
        })
        .collect()
}

impl Piece<'_> {
    /// Does the weight begin with this piece?
    pub fn is_first(&self) -> bool {
        self.first == 0
    }

    /// Does it end with this one?
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// The bytes of the piece, and what packing lost. `calibration` is what is known of what
    /// products read.
    ///
    /// Refuses a checkpoint that can no longer be read, and values that are not finite.
    pub fn pack(&self, weights: &Weights, calibration: &Known) -> Result<Made, Unpacked> {
        let bytes = match self.source {
            Source::Packed(packed) => return self.panels(packed, weights, calibration),
            Source::Plain { paths, dims } => self.rows(paths, dims, (weights, calibration))?,
            Source::Order(order) => order.iter().flat_map(|expert| expert.to_le_bytes()).collect(),
            Source::RopeTable { positions, head_dim, theta } => {
                let (head_dim, positions) = (narrow32(*head_dim), narrow32(*positions));
                let table = rope_table(*theta, head_dim, positions);
                table.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
        };
        Ok(Made { bytes, ..Made::default() })
    }

    fn panels(
        &self,
        packed: &Packed,
        weights: &Weights,
        calibration: &Known,
    ) -> Result<Made, Unpacked> {
        let rows_of = |path: &String| match weights.tensor(path) {
            Some(tensor) => tensor.rows().0,
            None => panic!("broken invariant `link.known`: no tensor `{path}`"),
        };
        let panels = packed.panels_of(&packed.paths.iter().map(rows_of).collect::<Vec<_>>());
        let panel_bytes = narrow(packed.panel_bytes());
        let behind_bytes = narrow(packed.bytes_behind());
        let mut made = Made {
            bytes: vec![0; panel_bytes * narrow(self.count)],
            behind: vec![0; behind_bytes * narrow(self.count)],
            loss: Loss::default(),
        };
        let mut sensitivities = Sensitivities::new(calibration, packed);
        let row_bytes = narrow(packed.k * 2);
        let mut buffer = vec![0; row_bytes * packed.arrangement.width() as usize];
        let outs = made.bytes.chunks_exact_mut(panel_bytes);
        for (at, (panel, out)) in (self.first..).zip(outs).enumerate() {
            let behind = &mut made.behind[at * behind_bytes..][..behind_bytes];
            let sources = panels.sources(packed.panel(panel));
            for (source, row) in sources.iter().zip(buffer.chunks_exact_mut(row_bytes)) {
                if let Some(source) = source {
                    let path = &packed.paths[source.path];
                    read(path, [source.row, 1], row, (weights, calibration))?;
                }
            }
            let paths = sources.iter().flatten().map(|source| source.path);
            let sensitivity = sensitivities.of(paths);
            let rows = sources.iter().zip(buffer.chunks_exact(row_bytes));
            let rows: Vec<Option<&[u8]>> = rows.map(|(source, row)| source.map(|_| row)).collect();
            let (scheme, k) = (packed.scheme, narrow(packed.k));
            let lost = match packed.arrangement {
                Arrangement::Panels { .. } => pack_panel(scheme, k, &rows, sensitivity, out),
                Arrangement::Rows => pack_rows(scheme, k, &rows, sensitivity, (out, behind)),
            };
            made.loss += lost.unwrap_or_else(|found| {
                panic!("broken invariant `link.finite`: {found} of {:?}", packed.paths)
            });
        }
        Ok(made)
    }

    fn rows(
        &self,
        paths: &[String],
        dims: &[u64],
        (weights, calibration): (&Weights, &Known),
    ) -> Result<Vec<u8>, Unpacked> {
        let [path] = paths else { panic!("broken invariant `link.plain_one`: {paths:?}") };
        let row_bytes = dims[1..].iter().product::<u64>() * 2;
        let mut bytes = vec![0; narrow(row_bytes * self.count)];
        let tensor =
            weights.tensor(path).unwrap_or_else(|| panic!("broken invariant `link.known`: {path}"));
        let (rows, elements) = tensor.rows();
        // The checkpoint may group its elements otherwise (a leading 1, a convolution's window).
        let (first, count) = (self.first * row_bytes / 2, self.count * row_bytes / 2);
        if first % elements == 0 && count % elements == 0 {
            let rows = [first / elements, count / elements];
            read(path, rows, &mut bytes, (weights, calibration))?;
            return Ok(bytes);
        }
        let mut whole = vec![0; narrow(rows * elements * 2)];
        read(path, [0, rows], &mut whole, (weights, calibration))?;
        bytes.copy_from_slice(&whole[narrow(first * 2)..][..narrow(count * 2)]);
        Ok(bytes)
    }
}

/// Some rows of a tensor, as what is known of activations has changed them.
///
/// Refuses a checkpoint that can no longer be read, and values that are not finite.
fn read(
    path: &str,
    [first, count]: [u64; 2],
    out: &mut [u8],
    (weights, calibration): (&Weights, &Known),
) -> Result<(), Unpacked> {
    weights.rows(path, first, count, out)?;
    let row_bytes = out.len() / narrow(count).max(1);
    let refuse = |(at, value), moved| {
        let tensor = weights.tensor(path).expect("it was read");
        let element = first * row_bytes as u64 / 2 + at;
        let place = place(&tensor.shape(), element);
        let path = path.to_owned();
        Unpacked::NotFinite(CompileError::NotFinite { path, place, value, moved })
    };
    finite::first_not(out).map_or(Ok(()), |found| Err(refuse(found, false)))?;
    let Some(fold) = calibration.fold(path) else { return Ok(()) };
    let rows = out.chunks_exact_mut(row_bytes);
    (first..).zip(rows).for_each(|(at, row)| fold.apply(at, row));
    finite::first_not(out).map_or(Ok(()), |found| Err(refuse(found, true)))
}

/// The indices of an element of a tensor of this shape, outermost first.
fn place(shape: &[u64], element: u64) -> Vec<u64> {
    let mut rest = element;
    let mut place: Vec<u64> = shape
        .iter()
        .rev()
        .map(|size| {
            let index = rest % size;
            rest /= size;
            index
        })
        .collect();
    place.reverse();
    place
}

fn narrow(size: u64) -> usize {
    usize::try_from(size).expect("an address space holds what a file holds")
}

fn narrow32(size: u64) -> u32 {
    u32::try_from(size).expect("sizes of kernels fit u32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_named_by_its_indices() {
        assert_eq!(place(&[1536, 3, 14, 14], 0), [0, 0, 0, 0]);
        assert_eq!(place(&[1536, 3, 14, 14], 588 + 196 + 14 + 3), [1, 1, 1, 3]);
        assert_eq!(place(&[1, 36, 72], 71 + 5 * 72), [0, 5, 71]);
        assert_eq!(place(&[88], 87), [87]);
    }
}
