//! One kernel's configs, run in this process on random values in turn with the rule's choice.

use std::time::{Duration, Instant};

use sail_ir::plan::Count;
use sail_kernels::cost::MachineLimits;
use sail_kernels::emit::run::{Counts, Loaded, Race};
use sail_kernels::emit::sample;
use sail_kernels::{Config, Operand, Shaped};

use super::Machine;
use super::database::Record;
use super::score::{Ratio, Score, median};
use super::search::Effort;

/// Tokens of calls: decoding alone and in a small batch, a short prompt, a chunk of a long one.
const TOKENS: [u32; 4] = [1, 8, 64, 512];

/// Image tiles of calls, each some hundred or thousand rows.
const IMAGES: [u32; 1] = [1];

/// Rows whose logits are wanted.
const OUTPUTS: [u32; 2] = [1, 8];

/// Least and most rounds, and how long they should take together.
const ROUNDS: [usize; 2] = [7, 31];
const ROUNDS_TIME: Duration = Duration::from_millis(200);

/// A kernel as the rule has shaped it, with what it takes to run it.
pub struct Track<'k> {
    kernel: &'k dyn Shaped,
    machine: &'k Machine,
    own: Loaded,
    race: Race,
    /// What the machine does at best in these seconds.
    limits: Option<MachineLimits>,
    /// Of the rule's choice against itself, at each count.
    noise: Vec<Ratio>,
    rounds: Vec<usize>,
}

impl<'k> Track<'k> {
    /// Place the arguments and measure the rule's choice against itself; `record` is told.
    ///
    /// Refuses what `record` does.
    pub fn new<E>(
        kernel: &'k dyn Shaped,
        machine: &'k Machine,
        record: &mut dyn FnMut(&Record) -> Result<(), E>,
    ) -> Result<Self, E> {
        let largest = *counts(kernel).last().expect("there are counts for everything");
        let operands = kernel.operands(largest);
        let width = machine.target.limits().panel_width;
        let buffers: Vec<Vec<u8>> = operands
            .iter()
            .zip(1..)
            .map(|(operand, seed)| sample::bytes(operand, width, seed))
            .collect();
        let weight = operands.iter().position(|it| matches!(it, Operand::Panels { .. }));
        let race = Race::new(machine.threads, &buffers, weight);
        let own = Loaded::new(kernel, &machine.target);
        let (noise, rounds, limits) = (Vec::new(), Vec::new(), machine.limits());
        let mut track = Self { kernel, machine, own, race, limits, noise, rounds };
        for count in counts(kernel).iter().copied() {
            let own = &track.own;
            let first = run(&mut track.race, track.kernel, count, [own; 2], 1);
            let once = (first[0][0] + first[0][1]).max(Duration::from_nanos(1));
            let rounds = ROUNDS_TIME.as_nanos() / once.as_nanos();
            let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
            let rounds = rounds.clamp(ROUNDS[0], ROUNDS[1]);
            let times = run(&mut track.race, track.kernel, count, [own; 2], rounds);
            let ratio = Ratio::of(&times);
            track.rounds.push(rounds);
            track.noise.push(ratio);
            record(&track.record(&kernel.config(), count, &times))?;
        }
        Ok(track)
    }

    /// Run a config in turn with the rule's choice; `record` is told.
    ///
    /// Refuses what `record` does.
    pub fn measure<E>(
        &mut self,
        config: &Config,
        effort: Effort,
        record: &mut dyn FnMut(&Record) -> Result<(), E>,
    ) -> Result<Score, E> {
        let other = Loaded::new(self.kernel.with(config).as_ref(), &self.machine.target);
        let mut ratios = Vec::new();
        for (count, rounds) in counts(self.kernel).iter().zip(self.rounds.clone()) {
            let rounds = if effort == Effort::Confirm { 2 * rounds } else { rounds };
            let both = [&self.own, &other];
            let times = run(&mut self.race, self.kernel, *count, both, rounds);
            ratios.push(Ratio::of(&times));
            record(&self.record(config, *count, &times))?;
        }
        Ok(Score::of(&ratios, &self.noise))
    }

    fn record(&self, config: &Config, count: u32, rounds: &[[Duration; 2]]) -> Record {
        let (grid, cost) = (self.kernel.grid(), self.kernel.cost());
        let [positions, looks] = self.kernel.looks(count);
        let bytes = cost.bytes(grid.rows(count), positions) as f64;
        let [floats, integers] =
            cost.operations_by_kind(grid.rows(count), looks).map(|count| count as f64);
        let time = median(rounds, 1);
        let seconds = time.as_secs_f64().max(1e-9);
        let shares = self.limits.map_or([0.0; 2], |limits| {
            let read = bytes / limits.bytes_per_second;
            let computed = floats / limits.operations_per_second
                + integers / limits.byte_operations_per_second;
            [read / seconds, computed / seconds]
        });
        Record {
            kernel: self.kernel.symbol(),
            config: config.clone(),
            count: (grid.count, count),
            rounds: rounds.len(),
            time,
            ratio: Ratio::of(rounds),
            shares,
        }
    }
}

/// Run both kernels in turn over `count` counted rows.
fn run(
    race: &mut Race,
    kernel: &dyn Shaped,
    count: u32,
    both: [&Loaded; 2],
    rounds: usize,
) -> Vec<[Duration; 2]> {
    for (at, operand) in kernel.operands(count).iter().enumerate() {
        if let Operand::Numbers(numbers) = operand {
            race.put(at, &sail_kernels::emit::run::i32_bytes(numbers));
        }
    }
    let none = Counts { pages_per_slot: kernel.pages_per_slot(), ..Counts::default() };
    let counts = match kernel.grid().count {
        Count::Images => Counts { images: count, ..none },
        Count::Tokens => Counts { tokens: count, ..none },
        Count::Outputs => Counts { tokens: count, outputs: count, ..none },
    };
    race.run(counts, both, rounds)
}

/// Counts that a kernel is measured at, ascending.
fn counts(kernel: &dyn Shaped) -> &'static [u32] {
    match kernel.grid().count {
        Count::Tokens => &TOKENS,
        Count::Images => &IMAGES,
        Count::Outputs => &OUTPUTS,
    }
}

/// When a kernel's time is up: an equal part of what is left.
pub fn deadline(end: Option<Instant>, kernels_left: usize) -> Option<Instant> {
    let now = Instant::now();
    let left = end?.saturating_duration_since(now);
    Some(now + left / u32::try_from(kernels_left.max(1)).unwrap_or(u32::MAX))
}
