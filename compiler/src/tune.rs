//! Which config of each kernel is fastest on this machine, found by running candidates.
//!
//! The rule's choice and a candidate run in turn on random values, on as many threads as a model would
//! have, at the numbers of rows that calls have: their ratio in each round is what counts, so that a
//! machine that slows down for a while slows both. A candidate takes the place of the rule's choice when
//! it is faster beyond the spread of these ratios, at no number of rows slower, and wins a second time.
//!
//! Kernels of CUDA targets are not run here: what is pinned of them is what their model chooses.

pub mod database;
mod error;
mod measure;
mod score;
mod search;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sail_ir::Target;
use sail_ir::plan::Arithmetic;
use sail_kernels::cost::MachineLimits;
use sail_kernels::{Config, Kernel, Shaped};
use sail_runtime::device::probe::{ReadProbe, operations};

use crate::error::{CompileError, Failure, boxed};
use database::Database;
use measure::{Track, deadline};
use search::search;

pub use error::TuneError;

/// What is asked of a search.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// One family of kernels alone, of any scheme.
    pub only: Option<String>,
    /// How long all may take together.
    pub time: Option<Duration>,
}

/// What is measured with.
pub struct Machine {
    pub target: Target,
    pub cpu: String,
    pub threads: usize,
    /// Finds out what the machine does at best; left out, shares are zeros.
    pub probe: Option<ReadProbe>,
}

/// What was found for one kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    pub kernel: String,
    /// The rule's choice.
    pub own: Config,
    pub best: Config,
    /// Time of `best` by that of `own`.
    pub ratio: f64,
    /// Configs beside the rule's choice that were measured, and whether these were all.
    pub tried: usize,
    pub complete: bool,
}

impl Machine {
    /// This machine, on so many threads. `target` must be one that it runs.
    #[must_use]
    pub fn this(target: &Target, threads: usize) -> Self {
        let probe = ReadProbe::new(threads).ok();
        Self { target: target.clone(), cpu: database::cpu(), threads, probe }
    }

    /// What it does at best right now: neighbours change that within seconds.
    fn limits(&self) -> Option<MachineLimits> {
        let bytes_per_second = self.probe.as_ref()?.measure();
        let [operations_per_second, byte_operations_per_second] =
            [Arithmetic::Floats, Arithmetic::Bytes]
                .map(|arithmetic| operations(&self.target, arithmetic, self.threads));
        let all = [bytes_per_second, operations_per_second, byte_operations_per_second];
        all.iter().all(|limit| *limit > 0.0).then_some(MachineLimits {
            bytes_per_second,
            operations_per_second,
            byte_operations_per_second,
        })
    }
}

/// Those of `kernels` that can be shaped and that are wished for.
///
/// Refuses a family that none is of.
pub fn chosen<'k>(
    kernels: &[&'k dyn Kernel],
    wish: &Wish,
) -> Result<Vec<&'k dyn Shaped>, TuneError> {
    let all = kernels.iter().filter_map(|kernel| kernel.shaped()).collect();
    wished(all, wish, |kernel| kernel.family())
}

/// Those of `all` whose family is wished for.
///
/// Refuses a family that none is of.
pub fn wished<T>(
    all: Vec<T>,
    wish: &Wish,
    family: impl Fn(&T) -> &str,
) -> Result<Vec<T>, TuneError> {
    let Some(only) = &wish.only else { return Ok(all) };
    let known: BTreeSet<_> = all.iter().map(|one| plain(family(one)).to_owned()).collect();
    let chosen: Vec<_> = all.into_iter().filter(|one| plain(family(one)) == only).collect();
    if chosen.is_empty() {
        let known = known.into_iter().collect();
        return Err(TuneError::NoFamily { family: only.clone(), known });
    }
    Ok(chosen)
}

/// Search for the best config of every kernel.
///
/// Refuses what the database does; stops when `go_on` says so.
pub fn run(
    kernels: &[&dyn Shaped],
    machine: &Machine,
    wish: &Wish,
    database: &mut Database,
    go_on: &mut dyn FnMut(&str, usize, usize) -> bool,
) -> Result<Vec<Tuned>, Failure> {
    let end = wish.time.map(|time| Instant::now() + time);
    let mut tuned = Vec::new();
    for (index, kernel) in kernels.iter().enumerate() {
        let end = deadline(end, kernels.len() - index);
        let symbol = kernel.pinned_as();
        let mut record = |record: &database::Record| -> Result<(), Failure> {
            match go_on(&symbol, index, kernels.len()) {
                true => database.add(record).map_err(boxed),
                false => Err(boxed(CompileError::Interrupted)),
            }
        };
        let mut track = Track::new(*kernel, machine, &mut record)?;
        let own = kernel.config();
        let found = search(&own, &kernel.space(), |config, effort| {
            let is_over = end.is_some_and(|end| Instant::now() >= end);
            if is_over && effort == search::Effort::Look {
                return Ok(None);
            }
            track.measure(config, effort, &mut record).map(Some)
        })?;
        let ratio = found.score.map_or(1.0, |score| score.ratio);
        let (best, tried, complete) = (found.best, found.tried, found.complete);
        tuned.push(Tuned { kernel: symbol, own, best, ratio, tried, complete });
    }
    Ok(tuned)
}

/// A family without its scheme.
fn plain(family: &str) -> &str {
    let schemes = ["_int8", "_int8_weight", "_int4", "_fp8"]; // of weights, or of the cache
    schemes.iter().find_map(|scheme| family.strip_suffix(scheme)).unwrap_or(family)
}
