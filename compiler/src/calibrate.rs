//! What products read when the model is at work: found by running `bf16` on a prompt set, kept in a
//! small file, used when weights are packed.
//!
//! For every input of a product: the greatest magnitude of each channel, and the second moments of
//! the channels of each group of a scheme. Moments across groups are left out: all of them would be
//! the square of the width, 150 MB for one product of the 2B model, and rounding is done group by
//! group, so only what is inside of one is needed.

mod error;
mod experts;
mod file;
mod migrate;
mod moments;

use std::collections::BTreeMap;
use std::path::Path;

use sail_ir::Scheme;
use sail_kernels::packing::Sensitivity;
use sail_models::Model;
use sail_runtime::taps::Pattern;
use sail_runtime::{Options as Opening, Program};

use crate::error::{Failure, boxed};
use crate::options::Options;
use crate::passes::smooth;
use crate::passes::tap_inputs::{EXPERTS, PREFIX, inputs_of_weights};
use crate::plan::weights::Packed;
use crate::quality::PromptSet;
use crate::quality::run::{answered, inside};
use crate::stage::{Graph, Module};

pub use error::CalibrationError;
pub use file::{Calibration, fingerprint};
pub use migrate::{Fold, Migration};
pub use moments::Moments;

/// Calibration that was asked for, and which of its inputs belongs to which tensor.
#[derive(Debug, Default)]
pub struct Known {
    calibration: Option<Calibration>,
    inputs: BTreeMap<String, String>,
    migration: Migration,
}

/// Read what the options name.
///
/// Refuses what [`Calibration::open`] does, and inputs of another width than the weights they meet.
pub fn of_options(
    options: &Options,
    graph: &Module<'_, Graph>,
    model: &Model,
) -> Result<Known, Failure> {
    let Some(path) = &options.calibration else { return Ok(Known::default()) };
    let fingerprint = fingerprint(&model.weights).map_err(boxed)?;
    let calibration = Calibration::open(path, &fingerprint).map_err(boxed)?;
    let inputs = inputs_of_weights(graph);
    for (tensor, input) in &inputs {
        let Some(found) = calibration.input(input).map(Moments::width) else { continue };
        let expected = model.weights.tensor(tensor).expect("the graph reads it").rows().1;
        if found as u64 != expected {
            let because = format!(
                "`{input}.max` has shape [{found}], expected [{expected}], as `{tensor}` meets it"
            );
            return Err(boxed(CalibrationError::file(path, because)));
        }
    }
    let migration = match options.smooth {
        None => Migration::default(),
        Some(alpha) => {
            let sites = smooth::sites(graph);
            Migration::new(&sites, &calibration, &model.weights, alpha).map_err(boxed)?
        }
    };
    Ok(Known { calibration: Some(calibration), inputs, migration })
}

impl Known {
    /// The option that brought it, for the artifact: its hash, as a path says nothing elsewhere.
    #[must_use]
    pub fn echo(&self) -> Option<String> {
        let blake3 = self.calibration.as_ref()?.blake3()?;
        Some(format!("--calibration=blake3:{blake3}"))
    }

    /// What `--explain smooth` prints.
    #[must_use]
    pub fn explain_smooth(&self) -> String {
        self.migration.explain()
    }

    /// What outliers that are moved make of the tensor at `path`.
    #[must_use]
    pub fn fold(&self, path: &str) -> Option<&Fold> {
        self.migration.of(path)
    }

    /// What the product with tensor `path` reads: its name, and what is known of it.
    fn input(&self, path: &str) -> Option<(&str, &Moments)> {
        let name = self.inputs.get(path)?;
        Some((name, self.calibration.as_ref()?.input(name)?))
    }
}

/// How much errors of one weight matter; made when a panel asks, as those of a large model do not
/// fit memory all at once.
#[derive(Debug)]
pub struct Sensitivities<'k> {
    /// Of each path, where that is known.
    inputs: Vec<Option<(&'k str, &'k Moments)>>,
    /// What the columns of each path are multiplied with.
    folds: Vec<Option<&'k Fold>>,
    made: BTreeMap<&'k str, Sensitivity>,
}

impl<'k> Sensitivities<'k> {
    /// `bf16` has no errors that could be chosen.
    #[must_use]
    pub fn new(known: &'k Known, packed: &Packed) -> Self {
        let of = |path: &String| {
            let input = known.input(path).filter(|_| packed.scheme != Scheme::Bf16)?;
            let (width, k) = (input.1.width() as u64, packed.k);
            assert_eq!(width, k, "broken invariant `calibrate.width`: `{path}`");
            Some(input)
        };
        let folds = packed.paths.iter().map(|path| known.fold(path)).collect();
        Self { inputs: packed.paths.iter().map(of).collect(), folds, made: BTreeMap::new() }
    }

    /// Of a panel with rows of these paths: they must all be multiplied with the same channels.
    pub fn of(&mut self, mut paths: impl Iterator<Item = usize>) -> Option<&Sensitivity> {
        let first = paths.next()?;
        let (name, moments) = self.inputs[first]?;
        let columns = self.folds[first].and_then(|fold| fold.columns.as_deref());
        if !paths.all(|path| self.inputs[path].is_some_and(|(other, _)| other == name)) {
            return None;
        }
        Some(self.made.entry(name).or_insert_with(|| {
            let mut means = moments.means();
            if let Some(columns) = columns {
                migrate::divide(&mut means, columns);
            }
            Sensitivity::new(&means)
        }))
    }
}

/// Run `prompts` on the artifact at `path`, which taps what products read, and sum what comes by.
///
/// Refuses what sessions refuse, and values that are not finite.
pub fn measure(
    path: &Path,
    model: &Model,
    prompts: &PromptSet,
    threads: usize,
) -> Result<Calibration, Failure> {
    let options = Opening { threads: Some(threads), slots: 1, taps: true, ..Opening::default() };
    let program = Program::open(path, &options).map_err(boxed)?;
    let mut calibration = Calibration::new(fingerprint(&model.weights).map_err(boxed)?);
    let wanted = Pattern::new(&format!("{PREFIX}*,{EXPERTS}*,router.*"));
    for prompt in &prompts.prompts {
        let pictures = prompt.pictures();
        let (ids, _) = answered(&program, prompt, &pictures)?;
        let tensors = inside(&program, &ids, &pictures, &wanted)?;
        for tensor in &tensors {
            let finite = if let Some(name) = tensor.name.strip_prefix(PREFIX) {
                calibration.of_input(name, tensor.width()).add(&tensor.values)
            } else if let Some(router) = tensor.name.strip_prefix(EXPERTS) {
                let logits = tensors.iter().find(|tensor| tensor.name == router);
                let logits = logits.expect("broken invariant `calibrate.router`: it is tapped");
                experts::add(&mut calibration, &program, [tensor, logits])
            } else {
                true
            };
            if !finite {
                let (input, place) = (tensor.name.clone(), prompt.text.clone());
                return Err(boxed(CalibrationError::Overflow { input, place }));
            }
        }
    }
    // Squares of large values can be infinite where the values are not.
    match calibration.flawed() {
        None => Ok(calibration),
        Some(input) => {
            let place = prompts.name.clone();
            Err(boxed(CalibrationError::Overflow { input, place }))
        }
    }
}
