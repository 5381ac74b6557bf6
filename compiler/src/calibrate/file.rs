//! Calibration as a safetensors file: `INPUT.max [k]` and `INPUT.moments.GROUP [g, g]`, f32.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sail_models::{ModelError, Weights};

use super::{CalibrationError, Moments};

/// Names the fingerprint of the weights in the file's header.
const MODEL: &str = "sailc.calibration.model";

/// What the products of one model read.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    model: String,
    /// Of the file that it was read from, in hexadecimal digits.
    blake3: Option<String>,
    inputs: BTreeMap<String, Moments>,
}

impl Calibration {
    /// Of nothing yet; `model` is the [`fingerprint`] of the weights.
    #[must_use]
    pub fn new(model: String) -> Self {
        Self { model, blake3: None, inputs: BTreeMap::new() }
    }

    /// What is known of an input, to be added to.
    pub fn of_input(&mut self, name: &str, width: usize) -> &mut Moments {
        self.inputs.entry(name.to_owned()).or_insert_with(|| Moments::new(width))
    }

    /// What is known of an input.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&Moments> {
        self.inputs.get(name)
    }

    /// The hash of the file that it was read from.
    #[must_use]
    pub fn blake3(&self) -> Option<&str> {
        self.blake3.as_deref()
    }

    /// The first input with numbers that nothing can be rounded by.
    #[must_use]
    pub fn flawed(&self) -> Option<String> {
        let mut inputs = self.inputs.iter();
        inputs
            .find_map(|(name, moments)| moments.flaw().map(|(place, _)| format!("{name}.{place}")))
    }

    /// Inputs and rows that were summed.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.inputs.len(), self.inputs.values().map(|moments| moments.rows).max().unwrap_or(0))
    }

    /// The input with the widest channel beside its others: how many times the median channel's
    /// greatest magnitude that one's is, and its name. What is far above 1 costs bits of all other
    /// channels when rows are quantized.
    #[must_use]
    pub fn widest(&self) -> Option<(f32, &str)> {
        let ratio = |moments: &Moments| {
            let mut most: Vec<f32> =
                moments.most.iter().copied().filter(|most| *most > 0.0).collect();
            most.sort_unstable_by(f32::total_cmp);
            Some(most.last()? / most[most.len() / 2])
        };
        let ratios = self.inputs.iter().filter_map(|(name, it)| Some((ratio(it)?, name.as_str())));
        ratios.max_by(|one, other| one.0.total_cmp(&other.0))
    }

    /// The same numbers are the same bytes.
    pub fn write(&self, path: &Path) -> Result<(), CalibrationError> {
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        for (name, moments) in &self.inputs {
            tensors.push((format!("{name}.max"), vec![moments.width()], bytes(&moments.most)));
            for (group, means) in moments.means().iter().enumerate() {
                let size = means.len().isqrt();
                let name = format!("{name}.moments.{group}");
                tensors.push((name, vec![size, size], bytes(means)));
            }
        }
        let views = tensors.iter().map(|(name, dims, bytes)| {
            let view = TensorView::new(Dtype::F32, dims.clone(), bytes);
            (name.as_str(), view.expect("as many bytes as the sizes say"))
        });
        // One entry only: the order of several is not fixed.
        let metadata = HashMap::from([(MODEL.to_owned(), self.model.clone())]);
        let refuse = |because: String| CalibrationError::file(path, because);
        let file = safetensors::serialize(views, Some(metadata))
            .map_err(|error| refuse(error.to_string()))?;
        // Whole or not at all.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        fs::write(&temporary, file).and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
            // A leftover harms nobody.
            let _ = fs::remove_file(&temporary);
            refuse(error.to_string())
        })
    }

    /// Read a file made of the weights whose [`fingerprint`] is `model`.
    ///
    /// Refuses a file that cannot be read or is another one, one of other weights, values that are
    /// not finite, and such as no activations have.
    pub fn open(path: &Path, model: &str) -> Result<Self, CalibrationError> {
        let refuse = |because: String| CalibrationError::file(path, because);
        let bytes = fs::read(path).map_err(|error| {
            let error = error.to_string().to_lowercase();
            refuse(format!("it cannot be read: {}", error.split(" (os error").next().unwrap_or("")))
        })?;
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| refuse(error.to_string()))?;
        let metadata = header.metadata().as_ref();
        match metadata.and_then(|metadata| metadata.get(MODEL)) {
            None => return Err(refuse("it was not written by `sailc calibrate`".to_owned())),
            Some(found) if found != model => {
                return Err(CalibrationError::OtherModel { path: path.display().to_string() });
            }
            Some(_) => {}
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
        let values = |name: &str, shape: &[usize]| -> Result<Vec<f32>, CalibrationError> {
            let tensor = file.tensor(name).map_err(|error| refuse(error.to_string()))?;
            if tensor.dtype() != Dtype::F32 {
                return Err(refuse(format!("`{name}` is {:?}, expected F32", tensor.dtype())));
            }
            if tensor.shape() != shape {
                let found = tensor.shape();
                return Err(refuse(format!("`{name}` has shape {found:?}, expected {shape:?}")));
            }
            let values: Vec<f32> =
                tensor.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(values),
                false => {
                    let (input, place) = (name.to_owned(), path.display().to_string());
                    Err(CalibrationError::Infinite { input, place })
                }
            }
        };
        let mut calibration = Self::new(model.to_owned());
        calibration.blake3 = Some(blake3::hash(&bytes).to_hex().to_string());
        let mut names = file.names();
        names.sort_unstable();
        for name in names.iter().filter_map(|name| name.strip_suffix(".max")) {
            let most = format!("{name}.max");
            let width = file.tensor(&most).map_or(0, |it| it.shape().iter().product());
            let mut moments = Moments::new(width);
            moments.most = values(&most, &[width])?;
            moments.rows = 1;
            for (group, sums) in moments.sums.iter_mut().enumerate() {
                let name = format!("{name}.moments.{group}");
                let size = sums.len().isqrt();
                *sums = values(&name, &[size, size])?.into_iter().map(f64::from).collect();
            }
            if let Some((place, because)) = moments.flaw() {
                return Err(refuse(format!("`{name}.{place}` cannot be: {because}")));
            }
            calibration.inputs.insert(name.to_owned(), moments);
        }
        Ok(calibration)
    }
}

impl CalibrationError {
    pub(super) fn file(path: &Path, because: String) -> Self {
        Self::File { path: path.display().to_string(), because }
    }
}

/// BLAKE3 of names, shapes and first rows of all tensors: tells two models, and two states of one
/// that is trained, apart without reading all of either.
pub fn fingerprint(weights: &Weights) -> Result<String, ModelError> {
    let mut hasher = blake3::Hasher::new();
    let mut row = Vec::new();
    for tensor in weights.tensors() {
        hasher.update(format!("{} {:?}\n", tensor.name, tensor.shape()).as_bytes());
        let (_, elements) = tensor.rows();
        row.resize(usize::try_from(elements * 2).expect("a row fits memory"), 0);
        weights.rows(&tensor.name, 0, 1, &mut row)?;
        hasher.update(&row);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Calibration {
        let mut calibration = Calibration::new("m".to_owned());
        assert!(calibration.of_input("prefill.h", 130).add(&vec![0.5; 260]));
        assert!(calibration.of_input("vision.x", 2).add(&[1.0, -2.0]));
        calibration
    }

    #[test]
    fn a_calibration_is_read_as_it_was_written_and_is_the_same_bytes_twice() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for path in &paths {
            sample().write(path).unwrap();
        }
        assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
        let read = Calibration::open(&paths[0], "m").unwrap();
        assert_eq!(read.input("vision.x").unwrap().means(), [[1.0, -2.0, -2.0, 4.0]]);
        assert_eq!(read.input("prefill.h").unwrap().most, vec![0.5; 130]);
        assert_eq!(read.counts().0, 2);
        assert_eq!(read.widest().unwrap().0, 1.0);
        assert!(read.input("h").is_none());
    }

    #[test]
    fn refuses_other_weights_other_files_and_what_is_not_finite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats");
        sample().write(&path).unwrap();
        let error = Calibration::open(&path, "other").unwrap_err();
        assert!(matches!(error, CalibrationError::OtherModel { .. }), "{error}");

        let mut broken = sample();
        broken.inputs.get_mut("vision.x").unwrap().most[1] = f32::NAN;
        broken.write(&path).unwrap();
        let error = Calibration::open(&path, "m").unwrap_err();
        assert!(error.to_string().contains("`vision.x.max`"), "{error}");

        let mut narrow = sample();
        narrow.inputs.get_mut("vision.x").unwrap().sums[0] = vec![1.0];
        narrow.write(&path).unwrap();
        let error = Calibration::open(&path, "m").unwrap_err().to_string();
        assert!(
            error.contains("`vision.x.moments.0` has shape [1, 1], expected [2, 2]"),
            "{error}"
        );

        let mut negative = sample();
        negative.inputs.get_mut("prefill.h").unwrap().sums[1].fill(-1.0);
        negative.write(&path).unwrap();
        let error = Calibration::open(&path, "m").unwrap_err();
        assert!(matches!(error, CalibrationError::File { .. }), "{error}");
        assert!(error.to_string().contains("`prefill.h.moments.1`"), "{error}");

        fs::write(&path, b"{}").unwrap();
        assert!(matches!(
            Calibration::open(&path, "m").unwrap_err(),
            CalibrationError::File { .. }
        ));
        let plain = safetensors::serialize::<_, TensorView<'_>, _>(Vec::<(String, _)>::new(), None);
        fs::write(&path, plain.unwrap()).unwrap();
        let error = Calibration::open(&path, "m").unwrap_err().to_string();
        assert!(error.contains("sailc calibrate"), "{error}");
    }
}
