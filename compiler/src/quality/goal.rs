//! What a sheet must reach: `kl<=0.01`, `top1>=0.99`.

use std::fmt;
use std::str::FromStr;

use sail_ir::artifact::Measured;

use super::QualityError;

/// One number of a sheet.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub of: fn(&Measured) -> f64,
}

/// Every number that can be a goal.
pub static METRICS: [Metric; 7] = [
    Metric { name: "kl", of: |measured| measured.all.kl_mean },
    Metric { name: "kl-p99", of: |measured| measured.all.kl_p99 },
    Metric { name: "kl-max", of: |measured| measured.all.kl_max },
    Metric { name: "top1", of: |measured| measured.all.top1 },
    Metric { name: "answer-kl", of: |measured| measured.answers.kl_mean },
    Metric { name: "answer-top1", of: |measured| measured.answers.top1 },
    // Of the layer that has least.
    Metric {
        name: "snr",
        of: |measured| {
            let ratios = measured.layers.iter().filter_map(|layer| layer.snr_db);
            ratios.fold(f64::INFINITY, f64::min)
        },
    },
];

/// A metric and how great it may be at most, or must be at least.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    pub metric: &'static Metric,
    at_most: bool,
    limit: f64,
}

impl Goal {
    #[must_use]
    pub fn is_met(&self, measured: &Measured) -> bool {
        let found = (self.metric.of)(measured);
        if self.at_most { found <= self.limit } else { found >= self.limit }
    }
}

impl FromStr for Goal {
    type Err = QualityError;

    fn from_str(text: &str) -> Result<Self, QualityError> {
        let refuse = |because: String| {
            let known = METRICS.iter().map(|metric| format!("`{}`", metric.name));
            let known = known.collect::<Vec<_>>().join(", ");
            QualityError::Goal { text: text.to_owned(), because, known }
        };
        let parts = text.split_once("<=").map(|parts| (parts, true));
        let parts = parts.or_else(|| text.split_once(">=").map(|parts| (parts, false)));
        let Some(((name, limit), at_most)) = parts else {
            return Err(refuse("it has neither `<=` nor `>=`".to_owned()));
        };
        let (name, limit) = (name.trim(), limit.trim());
        let Some(metric) = METRICS.iter().find(|metric| metric.name == name) else {
            return Err(refuse(format!("nothing called `{name}` is measured")));
        };
        match limit.parse::<f64>() {
            Ok(limit) if limit.is_finite() => Ok(Self { metric, at_most, limit }),
            _ => Err(refuse(format!("`{limit}` is no number"))),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.at_most { "<=" } else { ">=" };
        write!(f, "{}{sign}{}", self.metric.name, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_a_name_a_sign_and_a_number() {
        let goal: Goal = " kl-p99 <= 1e-2".parse().unwrap();
        assert_eq!(goal.to_string(), "kl-p99<=0.01");
        assert_eq!("top1>=0.99".parse::<Goal>().unwrap().to_string(), "top1>=0.99");
    }

    #[test]
    fn refuses_what_is_no_goal() {
        let because = |text: &str| text.parse::<Goal>().unwrap_err().to_string();
        assert!(because("kl=0").contains("neither"));
        assert!(because("perplexity<=3").contains("`perplexity`"));
        assert!(because("kl<=nan").contains("no number"));
        assert!(because("kl<=").contains("no number"));
    }
}
