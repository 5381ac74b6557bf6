//! `sailc tune`: find the fastest configs of a model's kernels on this machine, and pin them; of a CUDA
//! target, pin what its model chooses.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::{Args, value_parser};
use sail_ir::output;
use sail_runtime::device::signal;

use super::progress;
use crate::error::{Failure, boxed};
use crate::lock::{Lock, LockError};
use crate::options::Options;
use crate::pipeline;
use crate::plan::build::OnGpu;
use crate::tune::database::Database;
use crate::tune::{self, Machine, Tuned, Wish};

/// Find the fastest configs of a model's kernels on this machine, and pin them.
#[derive(Debug, Args)]
#[command(after_help = "\
Kernels run in this process on random values, in turn with what the built-in rule chooses; a
config is pinned when it is faster beyond the spread. Answers do not depend on configs.

For `sm_80` and `sm_90` nothing is run: what a model of the chip chooses is pinned, to be looked at
and changed. There, `warps`, `blocks` and `parts` change the last bits of sums.

Example: sailc tune SAIL-VL2-2B --quant int4 --weights random:1 --lock sailc.lock
         sailc compile SAIL-VL2-2B --quant int4 --lock sailc.lock -o sail2b.sail")]
pub struct Tune {
    /// Folder with config.json, tokenizer.json and the safetensors files.
    checkpoint: PathBuf,
    /// A target of this machine, or `host`; or a CUDA target, of which nothing is measured.
    #[arg(long, default_value = "host")]
    target: String,
    /// How the weights of products are stored.
    #[arg(long, default_value = "bf16")]
    quant: String,
    /// Recipe file (TOML): other schemes for some layers, as `sailc compile` takes it.
    #[arg(long, value_name = "RECIPE")]
    quant_config: Option<PathBuf>,
    /// `random:SEED`: no weights are needed for tuning.
    #[arg(long)]
    weights: Option<String>,
    /// What `sail run --profile-experts` wrote, if the model shall be compiled with it.
    #[arg(long, value_name = "PROFILE")]
    expert_profile: Option<PathBuf>,
    /// The file to append measurements to, one a line.
    #[arg(long, value_name = "FILE", default_value = "sailc.measurements")]
    db: PathBuf,
    /// The file to pin the winners in; what it says of other kernels and targets stays.
    #[arg(long, value_name = "FILE", default_value = "sailc.lock")]
    lock: PathBuf,
    /// How long to search; as long as it takes to try everything, by default.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Only kernels of this family: `linear`, `gate_up_silu`, …
    #[arg(long, value_name = "FAMILY")]
    only: Option<String>,
    /// Threads that run the kernels, as many as the model will have.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Tune {
    pub fn run(&self) -> Result<(), Failure> {
        let options = self.options()?;
        let mut lock = match Lock::open(&self.lock) {
            // What was measured with other code is measured again.
            Err(LockError::Stale { .. }) => Lock::default(),
            Err(LockError::File { .. }) if !self.lock.exists() => Lock::default(),
            other => other.map_err(boxed)?,
        };
        let wish = Wish {
            only: self.only.clone(),
            time: self.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        };
        if options.target.gpu().is_some() {
            return self.pin_chosen(&options, &wish, lock);
        }
        signal::listen();
        let bar = progress::steps();
        let tuned = pipeline::tune(&self.checkpoint, &options, |kernels| {
            let kernels = tune::chosen(kernels, &wish).map_err(boxed)?;
            let machine = Machine::this(&options.target, options.threads);
            let mut database = Database::open(&self.db, &machine).map_err(boxed)?;
            tune::run(&kernels, &machine, &wish, &mut database, &mut |kernel, index, all| {
                bar.set_length(all as u64);
                bar.set_position(index as u64);
                bar.set_message(kernel.to_owned());
                !signal::stop_wish().load(Ordering::Relaxed)
            })
        });
        bar.finish_and_clear();
        let tuned = tuned?;
        for found in tuned.iter().filter(|found| found.tried > 0) {
            lock.pin(&options.target, found.kernel.clone(), &found.best);
        }
        lock.write(&self.lock).map_err(boxed)?;
        let text = if self.json { self.document(&options, &tuned) } else { self.text(&tuned) };
        output::put(&text).map_err(boxed)
    }

    /// Pin what the model of a CUDA target chooses.
    fn pin_chosen(&self, options: &Options, wish: &Wish, mut lock: Lock) -> Result<(), Failure> {
        let chosen = pipeline::chosen(&self.checkpoint, options)?.into_iter().collect();
        let chosen = tune::wished(chosen, wish, |(_, it): &(String, OnGpu)| it.family.as_str());
        let chosen = chosen.map_err(boxed)?;
        for (kernel, it) in &chosen {
            lock.pin(&options.target, kernel.clone(), &it.config);
        }
        lock.write(&self.lock).map_err(boxed)?;
        let text = match self.json {
            true => self.document_of(options, &chosen),
            false => self.text_of(options, &chosen),
        };
        output::put(&text).map_err(boxed)
    }

    fn text_of(&self, options: &Options, chosen: &[(String, OnGpu)]) -> String {
        let line = |(kernel, it): &(String, OnGpu)| {
            let OnGpu { config, expected, reason, .. } = it;
            format!("{kernel}\n    {config}: {reason}\n    {expected}\n")
        };
        let mut text: String = chosen.iter().map(line).collect();
        text.push_str(&format!(
            "pinned {} kernels in `{}` as the model of `{}` chooses; nothing was measured\n",
            chosen.len(),
            self.lock.display(),
            options.target
        ));
        text
    }

    fn document_of(&self, options: &Options, chosen: &[(String, OnGpu)]) -> String {
        let rows = chosen.iter().map(|(kernel, it)| {
            serde_json::json!({
                "kernel": kernel, "rule": it.config.to_string(), "reason": it.reason,
                "rows": it.expected.rows, "expected_seconds": it.expected.seconds(),
            })
        });
        format!(
            "{}\n",
            serde_json::json!({
                "schema": "sailc.tune/1", "target": options.target.name, "measured": false,
                "lock": self.lock.display().to_string(), "kernels": rows.collect::<Vec<_>>(),
            })
        )
    }

    fn options(&self) -> Result<Options, Failure> {
        let target = super::target(&self.target)?;
        let scheme = super::scheme(&self.quant)?;
        let weights = super::weights(self.weights.as_deref())?;
        let threads = super::threads(self.threads.map(usize::from));
        let scheme_rules = super::scheme_rules(self.quant_config.as_deref())?;
        Ok(Options {
            scheme,
            scheme_rules,
            weights,
            threads,
            expert_profile: self.expert_profile.clone(),
            ..Options::new(target)
        })
    }

    fn text(&self, tuned: &[Tuned]) -> String {
        let mut lines: Vec<String> = tuned.iter().map(line).collect();
        let count = |is: fn(&Tuned) -> bool| tuned.iter().filter(|found| is(found)).count();
        let (pinned, other) = (count(|it| it.tried > 0), count(|it| it.best != it.own));
        let late = count(|it| !it.complete);
        let late = match late {
            0 => String::new(),
            _ => format!("; time was up for {late} of them"),
        };
        lines.push(format!(
            "pinned {pinned} of {} kernels in `{}`, {other} otherwise than by rule{late}",
            tuned.len(),
            self.lock.display()
        ));
        lines.join("\n") + "\n"
    }

    fn document(&self, options: &Options, tuned: &[Tuned]) -> String {
        let rows = tuned.iter().map(|found| {
            serde_json::json!({
                "kernel": found.kernel, "rule": found.own.to_string(),
                "best": found.best.to_string(), "ratio": found.ratio,
                "tried": found.tried, "complete": found.complete,
            })
        });
        format!(
            "{}\n",
            serde_json::json!({
                "schema": "sailc.tune/1", "target": options.target.name,
                "threads": options.threads, "lock": self.lock.display().to_string(),
                "kernels": rows.collect::<Vec<_>>(),
            })
        )
    }
}

fn line(found: &Tuned) -> String {
    let Tuned { kernel, own, best, ratio, tried, .. } = found;
    match best == own {
        true => format!("{kernel}\n    {own}, the rule's choice, of {tried} others"),
        false => format!(
            "{kernel}\n    {best} instead of {own}: {:.1} % less time, of {tried} tried",
            100.0 * (1.0 - ratio)
        ),
    }
}
