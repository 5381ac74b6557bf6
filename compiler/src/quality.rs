//! The quality sheet: what fewer bits cost, found by running the artifact beside `bf16`.
//!
//! Both programs are made of the same checkpoint for the same target and run on this machine. `bf16`
//! answers every prompt; then both read prompt and answer, so that every position is compared behind
//! the same tokens. Nothing is drawn and nothing depends on threads: the same compile measures the
//! same numbers.

mod error;
pub mod goal;
mod prompts;
pub mod run;
mod stats;

use std::collections::BTreeMap;
use std::path::Path;

use sail_ir::Target;
use sail_ir::artifact::{LayerQuality, Machine, Measured, Quality, WeightQuality};
use sail_kernels::packing::Loss;
use sail_runtime::taps::{Pattern, Tensor};
use sail_runtime::{Options, Program};

use crate::error::{Failure, boxed};
use crate::plan::weights::Packed;

pub use error::QualityError;
pub use goal::Goal;
pub use prompts::PromptSet;
use run::{answered, inside};
use stats::{Likeness, Tokens};

/// What is compared: the hidden states behind each layer, and what is said at the end.
const COMPARED: &str = "vit.*,image_features,layers.*,logits";

/// What `--quality` and `--goal` ask for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub prompts: PromptSet,
    pub goals: Vec<Goal>,
}

/// A packed weight's line of the sheet.
#[must_use]
pub fn of_weight(packed: &Packed, loss: Loss) -> WeightQuality {
    let [first, rest @ ..] = packed.paths.as_slice() else {
        panic!("broken invariant `weights.paths`: a weight of nothing")
    };
    let name = match rest.len() {
        0 => first.clone(),
        more => format!("{first} and {more} more"),
    };
    WeightQuality { name, scheme: packed.scheme, snr_db: stats::decibels(loss.signal, loss.noise) }
}

/// Refuse a target that this machine does not run: its artifact could not be measured.
pub fn runs_here(target: &Target) -> Result<(), QualityError> {
    let machine = Machine::this();
    let lacks = target.features.iter().filter(|feature| !machine.has(feature));
    match lacks.cloned().collect::<Vec<_>>() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(QualityError::Elsewhere { target: target.to_string(), missing }),
    }
}

/// Run `prompts` on two artifacts of one model: `bf16`, and the one that is measured.
///
/// Refuses what sessions refuse, and logits that are not finite.
pub fn measure(
    paths: [&Path; 2],
    prompts: &PromptSet,
    threads: usize,
) -> Result<Measured, Failure> {
    let options = Options { threads: Some(threads), slots: 1, taps: true, ..Options::default() };
    let [reference, program] = paths.map(|path| Program::open(path, &options).map_err(boxed));
    let (reference, program) = (reference?, program?);
    let (mut all, mut answers) = (Tokens::default(), Tokens::default());
    let mut layers = Layers::default();
    let compared = Pattern::new(COMPARED);
    for prompt in &prompts.prompts {
        let pictures = prompt.pictures();
        let (ids, answer) = answered(&reference, prompt, &pictures)?;
        let wanted = inside(&reference, &ids, &pictures, &compared)?;
        let got = inside(&program, &ids, &pictures, &compared)?;
        for (wanted, got) in wanted.iter().zip(&got) {
            assert_eq!(wanted.name, got.name, "broken invariant `quality.taps`: of one model");
            if wanted.name != "logits" {
                layers.add(wanted, got);
                continue;
            }
            let pairs = wanted.values.chunks(wanted.width()).zip(got.values.chunks(got.width()));
            for (position, (wanted, got)) in pairs.enumerate() {
                let found = all.add(wanted, got).ok_or_else(|| {
                    boxed(QualityError::NotFinite { prompt: prompt.text.clone(), position })
                })?;
                if position + 1 >= answer {
                    answers.take(found);
                }
            }
        }
    }
    Ok(Measured {
        set: prompts.name.clone(),
        blake3: prompts.blake3.clone(),
        prompts: prompts.prompts.len() as u64,
        all: all.divergence(),
        answers: answers.divergence(),
        layers: layers.finish(),
    })
}

/// Hidden states by name, in the order they came.
#[derive(Debug, Default)]
struct Layers {
    names: Vec<String>,
    found: BTreeMap<String, Likeness>,
}

impl Layers {
    fn add(&mut self, wanted: &Tensor, got: &Tensor) {
        if !self.found.contains_key(&wanted.name) {
            self.names.push(wanted.name.clone());
        }
        let likeness = self.found.entry(wanted.name.clone()).or_default();
        likeness.add(&wanted.values, &got.values, wanted.width());
    }

    fn finish(self) -> Vec<LayerQuality> {
        let line = |name: String| {
            let likeness = &self.found[&name];
            LayerQuality { snr_db: likeness.snr_db(), cosine: likeness.cosine(), name }
        };
        let mut layers: Vec<LayerQuality> = self.names.into_iter().map(line).collect();
        // A set may begin with a prompt without pictures.
        layers.sort_by_key(|layer| layer.name.starts_with("layers."));
        layers
    }
}

/// Refuse a sheet that misses a goal; all that are missed are named at once.
pub fn judge(quality: &Quality, goals: &[Goal]) -> Result<(), QualityError> {
    let Some(measured) = &quality.measured else { return Ok(()) };
    let missed: Vec<String> = goals
        .iter()
        .filter(|goal| !goal.is_met(measured))
        .map(|goal| format!("`{}` is {:.6}", goal.metric.name, (goal.metric.of)(measured)))
        .collect();
    if missed.is_empty() {
        return Ok(());
    }
    let asked = goals.iter().map(|goal| format!("`{goal}`")).collect::<Vec<_>>().join(", ");
    let worst = stats::worst(&measured.layers);
    Err(QualityError::Missed { asked, missed, worst, set: measured.set.clone() })
}

#[cfg(test)]
mod tests {
    use sail_ir::artifact::Divergence;
    use sail_ir::help::report;

    use super::*;

    fn sheet() -> Quality {
        let all = Divergence { positions: 9, kl_mean: 0.02, kl_p99: 0.1, kl_max: 0.5, top1: 0.9 };
        let layer =
            |name: &str, snr_db, cosine| LayerQuality { name: name.to_owned(), snr_db, cosine };
        let measured = Measured {
            set: "samples".to_owned(),
            blake3: String::new(),
            prompts: 1,
            all,
            answers: all,
            layers: vec![
                layer("vit.0", None, 1.0),
                layer("vit.1", Some(30.0), 0.99),
                layer("layers.0", Some(40.0), 1.0),
                layer("layers.1", Some(20.0), 0.9),
            ],
        };
        Quality { weights: Vec::new(), measured: Some(measured) }
    }

    fn goals(texts: &[&str]) -> Vec<Goal> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn refuses_a_target_that_does_not_run_here() {
        let mut target = Target::parse("x86-64-v3").unwrap();
        target.features.push("avx2048".to_owned());
        let error = runs_here(&target).unwrap_err();
        assert!(error.to_string().contains("`avx2048`"), "{error}");
        assert_eq!(sail_ir::Help::exit_code(&error), 4);
    }

    #[test]
    fn a_goal_that_is_met_says_nothing() {
        judge(&sheet(), &goals(&["kl<=0.02", "top1>=0.9", "snr>=20"])).unwrap();
        judge(&Quality::default(), &goals(&["kl<=0"])).unwrap();
    }

    #[test]
    fn a_goal_that_is_missed_names_its_number_and_the_layers_that_add_most_noise() {
        let goals = goals(&["kl<=0.01", "top1>=0.5", "snr>=25"]);
        let error = judge(&sheet(), &goals).unwrap_err();
        expect_test::expect![[r#"
            error[SC0706]: the artifact misses its goal: `kl<=0.01`, `top1>=0.5`, `snr>=25`
              on the prompt set `samples`
              because `kl` is 0.020000, `snr` is 20.000000, and most noise comes in at `layers.1` (20.00 dB behind it), `vit.1` (30.00 dB behind it)

            hint: nothing was written; ask for a scheme of more bits, or for a goal that this one can meet"#]]
        .assert_eq(&report(&error));
    }
}
