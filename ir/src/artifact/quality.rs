//! The quality sheet: how near an artifact is to its checkpoint, as it was found when compiling.
//!
//! Every ratio of signal to noise is in decibels; `None` means that there is no noise at all.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::scheme::Scheme;

/// The whole sheet. The weights are always compared; running needs a prompt set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Weights of products, in the order of the plan's.
    pub weights: Vec<WeightQuality>,
    /// `None`: no prompt set was given.
    pub measured: Option<Measured>,
}

/// A packed weight against the checkpoint's values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightQuality {
    /// The first of its tensors, and how many more there are.
    pub name: String,
    pub scheme: Scheme,
    pub snr_db: Option<f64>,
}

/// What running a prompt set gave, against `bf16` of the same checkpoint on the same target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The set's own name.
    pub set: String,
    /// BLAKE3 of its prompts and pictures, in hexadecimal digits.
    pub blake3: String,
    pub prompts: u64,
    /// Over all positions of prompts and answers.
    pub all: Divergence,
    /// Over the positions at which the answers' tokens are chosen.
    pub answers: Divergence,
    /// In the order of computing.
    pub layers: Vec<LayerQuality>,
}

/// How far the distribution of the next token lies from that of `bf16`, which writes the answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    pub positions: u64,
    /// Kullback-Leibler divergence from `bf16`, in nats.
    pub kl_mean: f64,
    /// The least that 99 % of the positions do not exceed.
    pub kl_p99: f64,
    pub kl_max: f64,
    /// Share of positions with the same most probable token.
    pub top1: f64,
}

/// Hidden states behind one layer, over all prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerQuality {
    /// As taps are called: `vit.3`, `image_features`, `layers.12`.
    pub name: String,
    pub snr_db: Option<f64>,
    /// Mean over positions of the cosine between the two states.
    pub cosine: f64,
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.measured {
            Some(measured) => measured.fmt(f)?,
            None => writeln!(f, "NOT MEASURED: no prompt set was given when it was compiled")?,
        }
        if !self.weights.is_empty() {
            writeln!(f, "weight against the checkpoint        snr dB")?;
        }
        for WeightQuality { name, scheme, snr_db } in &self.weights {
            writeln!(f, "{:32} {:>10}  {name}", scheme.name(), Decibels(*snr_db))?;
        }
        Ok(())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, blake3, prompts, all, answers, layers } = self;
        writeln!(f, "measured on `{set}`: {prompts} prompts, BLAKE3 {blake3}")?;
        writeln!(f, "next token       positions   kl mean    kl p99    kl max   top-1")?;
        for (name, divergence) in [("all", all), ("answers", answers)] {
            let Divergence { positions, kl_mean, kl_p99, kl_max, top1 } = divergence;
            writeln!(
                f,
                "{name:16} {positions:9} {kl_mean:9.6} {kl_p99:9.6} {kl_max:9.6} {top1:7.4}"
            )?;
        }
        writeln!(f, "hidden states        snr dB    cosine")?;
        for LayerQuality { name, snr_db, cosine } in layers {
            writeln!(f, "{name:16} {:>10} {cosine:9.6}", Decibels(*snr_db))?;
        }
        Ok(())
    }
}

/// A ratio for people.
#[derive(Debug, Clone, Copy)]
pub struct Decibels(pub Option<f64>);

impl fmt::Display for Decibels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => f.pad(&format!("{value:.2}")),
            None => f.pad("exact"),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn weights() -> Vec<WeightQuality> {
        let weight =
            |name: &str, scheme, snr_db| WeightQuality { name: name.to_owned(), scheme, snr_db };
        vec![
            weight("mlp1.1.weight", Scheme::Int4, Some(21.456)),
            weight("router.weight and 3 more", Scheme::Bf16, None),
        ]
    }

    #[test]
    fn a_sheet_without_prompts_says_so_and_still_has_weights() {
        let quality = Quality { weights: weights(), measured: None };
        expect![[r#"
              NOT MEASURED: no prompt set was given when it was compiled
              weight against the checkpoint        snr dB
              int4                                  21.46  mlp1.1.weight
              bf16                                  exact  router.weight and 3 more
        "#]]
        .assert_eq(&quality.to_string());
    }

    #[test]
    fn a_measured_sheet_is_a_table_and_comes_back_from_json() {
        let divergence =
            Divergence { positions: 120, kl_mean: 0.0012, kl_p99: 0.02, kl_max: 0.5, top1: 0.99 };
        let layer =
            |name: &str, snr_db, cosine| LayerQuality { name: name.to_owned(), snr_db, cosine };
        let measured = Measured {
            set: "samples".to_owned(),
            blake3: "ab".to_owned(),
            prompts: 2,
            all: divergence,
            answers: Divergence { positions: 7, ..divergence },
            layers: vec![layer("vit.0", None, 1.0), layer("layers.1", Some(31.5), 0.9991)],
        };
        let quality = Quality { weights: Vec::new(), measured: Some(measured) };
        expect![[r#"
              measured on `samples`: 2 prompts, BLAKE3 ab
              next token       positions   kl mean    kl p99    kl max   top-1
              all                    120  0.001200  0.020000  0.500000  0.9900
              answers                  7  0.001200  0.020000  0.500000  0.9900
              hidden states        snr dB    cosine
              vit.0                 exact  1.000000
              layers.1              31.50  0.999100
        "#]]
        .assert_eq(&quality.to_string());
        let json = serde_json::to_string(&quality).unwrap();
        assert_eq!(serde_json::from_str::<Quality>(&json).unwrap(), quality);
        assert!(serde_json::from_str::<Quality>(&json.replace("top1", "top2")).is_err());
    }
}
