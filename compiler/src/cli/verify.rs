//! `sailc verify`: an artifact against recorded outputs of an independent reference.

use std::path::PathBuf;

use clap::{Args, value_parser};
use sail_ir::output;
use sail_runtime::cli::{device, open};
use sail_runtime::{DeviceKind, Options};

use crate::error::{CompileError, Failure, boxed};
use crate::golden::run::{observe_with, positions, rule};
use crate::golden::{Golden, judge};

/// Compare every stage of a `.sail` file with a golden file of the same checkpoint.
#[derive(Debug, Args)]
#[command(after_help = "Example: sailc verify model.sail --golden golden.safetensors")]
pub struct Verify {
    /// A `.sail` file for this machine or its GPU.
    file: PathBuf,
    /// Recorded outputs; `tests/goldens/README.md` says how they are made.
    #[arg(long)]
    golden: PathBuf,
    /// Let the recorded router logits choose the experts: near-ties then fall alike.
    #[arg(long)]
    route_from_golden: bool,
    /// Decode so many rows in one call as well, of conversations at different places.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    rows: Option<u32>,
    /// What carries it out: `auto` (what the artifact was compiled for), `host` or `cuda:N`.
    #[arg(long, value_name = "D", value_parser = device, default_value = "auto")]
    device: DeviceKind,
    /// All processors this process may use by default.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Refuses (exit 5) when a stage lies beyond its bound or other tokens are generated.
    pub fn run(&self) -> Result<(), Failure> {
        let golden = Golden::open(&self.golden).map_err(boxed)?;
        let options = Options {
            device: self.device,
            threads: self.threads.map(usize::from),
            context: Some(positions(&golden)?),
            slots: self.rows.unwrap_or(1),
            taps: true,
            ..Options::default()
        };
        let program = open(&self.file, &options)?;
        let mut verdicts = Vec::new();
        for case in golden.cases() {
            let rule = rule(&program, self.route_from_golden);
            let rows = self.rows.unwrap_or(0);
            let observed = observe_with(&program, &case, (rule, rows))?;
            let verdict = judge(&case, &observed, rule).map_err(boxed)?;
            if !self.json {
                output::put(&verdict.to_string()).map_err(boxed)?;
            }
            verdicts.push(verdict);
        }
        program.wait_verified().map_err(boxed)?;
        let green = verdicts.iter().filter(|verdict| verdict.is_green()).count();
        let text = if self.json {
            format!(
                "{}\n",
                serde_json::json!({"schema": "sailc.verify/1", "cases": verdicts, "green": green})
            )
        } else {
            format!("{green} of {} cases within their bounds\n", verdicts.len())
        };
        output::put(&text).map_err(boxed)?;
        match verdicts.iter().find(|verdict| !verdict.is_green()) {
            None => Ok(()),
            Some(verdict) => Err(boxed(CompileError::Beyond {
                case: verdict.case.clone(),
                stage: verdict.first_beyond().map(|stage| stage.name.clone()),
                file: self.file.display().to_string(),
            })),
        }
    }
}
