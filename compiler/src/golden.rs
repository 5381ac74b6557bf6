//! Recorded outputs of an independent reference, and whether ours lie near enough.
//!
//! A golden file is a safetensors file of tensors `CASE.NAME`; `tests/goldens/README.md` lists the
//! names. This file reads one; [`judge`] compares; `report.rs` prints what was found.

pub mod judge;
mod report;
mod retrace;
pub mod run;
pub mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use sail_ir::Help;

use crate::error::plain;
pub use judge::{Observed, Rule, Verdict, judge};

/// A golden file, read whole.
#[derive(Debug)]
pub struct Golden {
    path: PathBuf,
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    dims: Vec<usize>,
    at: Range<usize>,
}

/// Values of one stage, row-major, as f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// Length of a row: the last size.
    #[must_use]
    pub fn width(&self) -> usize {
        self.dims.last().copied().unwrap_or(1).max(1)
    }

    /// Every value rounded to bf16.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let values = self.values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
        Self { dims: self.dims.clone(), values }
    }
}

/// Image tiles as the reference cut them, `[n, s, s, 3]` bytes of red, green and blue.
#[derive(Debug, Clone, Copy)]
pub struct Tiles<'g> {
    pub dims: &'g [usize],
    pub bytes: &'g [u8],
}

impl Golden {
    /// Refuses what is no safetensors file, and one without any `CASE.ids`.
    pub fn open(path: &Path) -> Result<Self, GoldenError> {
        let refuse = |because: String| GoldenError { path: path.to_owned(), because };
        let bytes = fs::read(path).map_err(|error| refuse(plain(&error)))?;
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| refuse(damage(&bytes, &error)))?;
        let start = header + 8;
        let entries = metadata.tensors().into_iter().map(|(name, info)| {
            let (first, end) = info.data_offsets;
            let at = start + first..start + end;
            (name, Entry { dtype: info.dtype, dims: info.shape.clone(), at })
        });
        let golden = Self { path: path.to_owned(), entries: entries.collect(), bytes };
        if golden.cases().is_empty() {
            return Err(golden.refuse("it has no tensor called `CASE.ids`"));
        }
        Ok(golden)
    }

    /// The recorded cases, in the order of their names.
    #[must_use]
    pub fn cases(&self) -> Vec<Case<'_>> {
        let names: BTreeSet<&str> =
            self.entries.keys().filter_map(|name| name.strip_suffix(".ids")).collect();
        names.into_iter().map(|name| Case { golden: self, name }).collect()
    }

    fn refuse(&self, because: impl Into<String>) -> GoldenError {
        GoldenError { path: self.path.clone(), because: because.into() }
    }
}

/// One prompt with everything the reference computed for it.
#[derive(Debug, Clone, Copy)]
pub struct Case<'g> {
    golden: &'g Golden,
    pub name: &'g str,
}

impl<'g> Case<'g> {
    /// The prompt, image places included.
    pub fn ids(&self) -> Result<Vec<u32>, GoldenError> {
        self.tokens("ids")
    }

    /// Tokens the reference generated in float32, its end of text left out.
    pub fn greedy(&self) -> Result<Vec<u32>, GoldenError> {
        self.tokens("greedy")
    }

    /// The image tiles, when the prompt has pictures.
    pub fn tiles(&self) -> Result<Option<Tiles<'g>>, GoldenError> {
        let Some(entry) = self.find("tiles") else { return Ok(None) };
        match entry.dtype {
            Dtype::U8 => {
                let bytes = &self.golden.bytes[entry.at.clone()];
                Ok(Some(Tiles { dims: &entry.dims, bytes }))
            }
            other => Err(self.golden.refuse(format!("`tiles` is {other:?}, expected U8"))),
        }
    }

    /// Names of the recorded stages, in the order they are computed.
    #[must_use]
    pub fn stages(&self) -> Vec<&'g str> {
        let prefix = format!("{}.", self.name);
        let names = self.golden.entries.keys().filter_map(|name| name.strip_prefix(&prefix));
        let mut stages: Vec<_> = names.filter_map(|name| Some((order(name)?, name))).collect();
        stages.sort_unstable();
        stages.into_iter().map(|(_, name)| name).collect()
    }

    /// Layers with recorded router logits, and the names of those, in order.
    #[must_use]
    pub fn routers(&self) -> Vec<(usize, &'g str)> {
        let stages = self.stages().into_iter();
        stages
            .filter_map(|name| Some((name.strip_prefix("router.")?.parse().ok()?, name)))
            .collect()
    }

    /// Values called `name`.
    ///
    /// Refuses a name that was not recorded and element types other than f32 and bf16.
    pub fn tensor(&self, name: &str) -> Result<Tensor, GoldenError> {
        let entry = self.entry(name)?;
        let bytes = &self.golden.bytes[entry.at.clone()];
        let values = match entry.dtype {
            Dtype::F32 => {
                bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
            }
            Dtype::BF16 => {
                bytes.as_chunks().0.iter().map(|two| bf16::from_le_bytes(*two).to_f32()).collect()
            }
            other => {
                return Err(self.golden.refuse(format!("`{name}` is {other:?}, expected F32")));
            }
        };
        Ok(Tensor { dims: entry.dims.clone(), values })
    }

    /// The same stage of the same reference run in bf16; where that was not recorded (pixels), its
    /// values rounded to bf16.
    pub fn in_bf16(&self, name: &str) -> Result<Tensor, GoldenError> {
        let recorded = format!("{name}_bf16");
        match self.find(&recorded) {
            Some(_) => self.tensor(&recorded),
            None => Ok(self.tensor(name)?.rounded()),
        }
    }

    fn tokens(&self, name: &str) -> Result<Vec<u32>, GoldenError> {
        let entry = self.entry(name)?;
        if entry.dtype != Dtype::I64 {
            return Err(self.golden.refuse(format!("`{name}` is {:?}, expected I64", entry.dtype)));
        }
        let bytes = self.golden.bytes[entry.at.clone()].as_chunks().0;
        let id = |eight: &[u8; 8]| u32::try_from(i64::from_le_bytes(*eight));
        let ids: Result<_, _> = bytes.iter().map(id).collect();
        ids.map_err(|_| self.golden.refuse(format!("`{name}` holds what is no token id")))
    }

    fn find(&self, name: &str) -> Option<&'g Entry> {
        self.golden.entries.get(&format!("{}.{name}", self.name))
    }

    fn entry(&self, name: &str) -> Result<&'g Entry, GoldenError> {
        let missing = || self.golden.refuse(format!("it has no tensor `{}.{name}`", self.name));
        self.find(name).ok_or_else(missing)
    }
}

/// What is wrong with a file that does not read as safetensors.
fn damage(bytes: &[u8], error: &SafeTensorError) -> String {
    match error {
        _ if bytes.is_empty() => "it is empty".to_owned(),
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength => {
            format!("it has {} bytes, not those that its header says: it is cut short", bytes.len())
        }
        _ => "it is no safetensors file".to_owned(),
    }
}

/// Where a stage stands in the order of computing; `None` for names that are no stage.
fn order(name: &str) -> Option<(usize, usize)> {
    let (kind, index) = match name.split_once('.') {
        Some((kind, index)) => (kind, index.parse().ok()?),
        None => (name, 0_usize),
    };
    match kind {
        "pixels" => Some((0, 0)),
        "vit" => Some((1, index)),
        "vision" => Some((2, 0)),
        "image_features" => Some((3, 0)),
        "layers" => Some((4, 2 * index)),
        "router" => Some((4, 2 * index + 1)),
        "logits" => Some((5, 0)),
        _ => None,
    }
}

/// A golden file cannot be used.
#[derive(Debug)]
pub struct GoldenError {
    path: PathBuf,
    because: String,
}

impl fmt::Display for GoldenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, because } = self;
        write!(f, "cannot use golden `{}`\n  because {because}", path.display())
    }
}

impl std::error::Error for GoldenError {}

impl Help for GoldenError {
    fn code(&self) -> &'static str {
        "SC0701"
    }

    fn hint(&self) -> Option<String> {
        Some(
            "a golden is made from the same checkpoint by the reference, never by sailc".to_owned(),
        )
    }

    fn exit_code(&self) -> u8 {
        3
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small golden files for tests.

    use safetensors::tensor::TensorView;

    use super::*;

    /// A golden file of f32 tensors and one id.
    pub fn golden(tensors: &[(&str, &[usize], Vec<f32>)], tokens: &[(&str, Vec<i64>)]) -> Golden {
        let floats = tensors.iter().map(|(name, dims, values)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            ((*name).to_owned(), Dtype::F32, dims.to_vec(), bytes)
        });
        let ids = tokens.iter().map(|(name, ids)| {
            let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            ((*name).to_owned(), Dtype::I64, vec![ids.len()], bytes)
        });
        let all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = floats.chain(ids).collect();
        let views = all.iter().map(|(name, dtype, dims, bytes)| {
            (name.as_str(), TensorView::new(*dtype, dims.clone(), bytes).unwrap())
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), safetensors::serialize(views, None).unwrap()).unwrap();
        Golden::open(file.path()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::golden;
    use super::*;

    #[test]
    fn stages_come_in_the_order_of_computing() {
        let names = ["vision", "layers.10", "layers.9", "router.9", "logits", "pixels", "vit.0"];
        let names: Vec<String> = names.iter().map(|name| format!("3.{name}")).collect();
        let tensors: Vec<_> =
            names.iter().map(|name| (name.as_str(), &[1][..], vec![0.0])).collect();
        let golden = golden(&tensors, &[("3.ids", vec![7]), ("3.greedy", vec![])]);
        let [case] = golden.cases()[..] else { panic!("one case") };
        let order = ["pixels", "vit.0", "vision", "layers.9", "router.9", "layers.10", "logits"];
        assert_eq!(case.stages(), order);
        assert_eq!((case.ids().unwrap(), case.greedy().unwrap()), (vec![7], vec![]));
    }

    #[test]
    fn a_stage_without_a_bf16_run_is_rounded() {
        let golden = golden(&[("0.pixels", &[2], vec![1.001, 0.5])], &[("0.ids", vec![])]);
        assert_eq!(golden.cases()[0].in_bf16("pixels").unwrap().values, [1.0, 0.5]);
    }

    #[test]
    fn refuses_what_is_no_golden_and_names_what_is_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"PK").unwrap();
        assert!(Golden::open(file.path()).is_err());
        let golden = golden(&[], &[("0.ids", vec![-1])]);
        let case = golden.cases()[0];
        assert!(case.ids().unwrap_err().to_string().contains("no token id"));
        assert!(case.tensor("logits").unwrap_err().to_string().contains("`0.logits`"));
    }
}
