//! The measurements as a table and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::runs::{FIRST_TOUCH, Family, Phase, Repetition, Runs, Sizes};
use crate::Program;
use crate::cli::measure::{Origin, Spread};
use crate::trace::Limits;

/// Everything that is printed.
pub struct Report<'p> {
    program: &'p Program,
    opening: Opening,
    runs: Runs,
}

/// Seconds since the file was about to be opened.
pub struct Opening {
    /// Until the program was ready.
    pub load: f64,
    /// Until a short prompt had its logits.
    pub start: f64,
}

/// One line of the table.
struct Line {
    name: String,
    /// Rate in `unit`.
    rate: Spread,
    unit: &'static str,
    /// Of the machine's limit, and which limit that is.
    share: Spread,
    limit: &'static str,
    /// Bytes in a second that the machine could read beside it.
    read_bytes: Spread,
    call: Call,
}

/// One call of a phase, of the middle repetition.
struct Call {
    /// Calls of a repetition.
    count: u64,
    /// Steps of one; on a GPU each is the launch of a kernel.
    steps: f64,
    seconds: f64,
    /// Seconds that its work needs at the limits.
    limit: f64,
}

impl<'p> Report<'p> {
    pub fn new(program: &'p Program, opening: Opening, runs: Runs) -> Self {
        Self { program, opening, runs }
    }

    fn lines(&self) -> Vec<Line> {
        let sizes = &self.runs.sizes;
        let mut lines = Vec::new();
        for (tiles, vision) in &self.runs.vision {
            let name = format!("vision {tiles} tile{}", plural(*tiles));
            let tiles = f64::from(*tiles);
            lines.push(line(name, vision, "ms/tile", |seconds| seconds * 1e3 / tiles));
        }
        let tokens = f64::from(sizes.prefill);
        let name = format!("prefill {}", sizes.prefill);
        lines.push(line(name, &self.runs.prefill, "tokens/s", |seconds| tokens / seconds));
        let tokens = f64::from(sizes.decode) * f64::from(sizes.batch);
        let several = match sizes.batch {
            1 => String::new(),
            batch => format!("{batch} x "),
        };
        let name = format!("{several}decode {} at {}", sizes.decode, sizes.prefill);
        lines.push(line(name, &self.runs.decode, "tokens/s", |seconds| tokens / seconds));
        lines
    }

    /// Bytes read, operations in floats, operations in 8-bit integers.
    fn limits(&self) -> [Spread; 3] {
        let all: Vec<_> = self.phases().flat_map(|(_, phase)| &phase.repetitions).collect();
        let of = |limit: fn(&Limits) -> f64| Spread::of(all.iter().map(|one| limit(&one.limits)));
        [of(|it| it.read_bytes), of(|it| it.operations), of(|it| it.byte_operations)]
    }

    /// For people.
    pub fn text(&self) -> String {
        let [read, floats, bytes] = self.limits();
        let first = Spread::of(self.runs.first_token.0.iter().copied());
        let mut text = String::new();
        let mut put = |line: std::fmt::Arguments| {
            text.write_fmt(line).and_then(|()| text.write_char('\n')).expect("a string grows");
        };
        put(format_args!("{}  {}", self.program.file(), self.program.manifest().target));
        put(format_args!("  {}", self.program.device()));
        put(format_args!(
            "  limits          {} {} GB/s, computes {} GOP/s in floats, {} in 8-bit integers{}",
            if self.runs.gpu { "copies" } else { "reads" },
            spread(read, 1e9),
            spread(floats, 1e9),
            spread(bytes, 1e9),
            match self.runs.origin {
                Origin::Measured => "",
                Origin::DataSheet => ", by its data sheet",
                Origin::Given => ", as given",
            },
        ));
        put(format_args!(
            "  load            {:.3} s, {:.3} s to the logits of a prompt of {FIRST_TOUCH} tokens",
            self.opening.load, self.opening.start
        ));
        put(format_args!(
            "  first token     {:.3} s [{:.3} .. {:.3}], prompt of {} tokens",
            first.median, first.min, first.max, self.runs.first_token.1
        ));
        for Line { name, rate, unit, share, limit, call, .. } in self.lines() {
            put(format_args!(
                "  {name:<15} {:.1} {unit} [{:.1} .. {:.1}], {:.0} % [{:.0} .. {:.0}] of the limit of {limit}",
                rate.median,
                rate.min,
                rate.max,
                share.median * 100.0,
                share.min * 100.0,
                share.max * 100.0,
            ));
            if self.runs.gpu {
                put(format_args!("{:<17} {}", "", self.call_line(&call)));
            }
        }
        let Sizes { batch, .. } = self.runs.sizes;
        let together = self.runs.decode_rows;
        if batch > together {
            put(format_args!(
                "  a token of each of the {batch} conversations takes {} calls: one decodes at most {together}",
                batch.div_ceil(together)
            ));
        }
        for (name, phase) in self.phases() {
            put(format_args!(""));
            put(format_args!(
                "{name:<9} {:<26} {:>6} {:>11} {:>12} {:>10} {:>6} {:>6}",
                "kernel family", "steps", "MB", "GOP", "ms", "time", "limit"
            ));
            let total = self.thread_seconds(phase);
            for (family, numbers) in &phase.families {
                put(format_args!("{}", self.family_line(family, numbers, phase, total)));
            }
            let busy: f64 = phase.families.values().map(|family| family.busy).sum();
            put(format_args!(
                "{:<9} {:<26} {:>6} {:>11} {:>12} {:>10.3} {:>5.1}%",
                "",
                "waiting",
                "",
                "",
                "",
                (total - busy) / self.divisor(phase) * 1e3,
                (total - busy) / total * 100.0
            ));
        }
        text
    }

    /// A call's time in parts, and the launches of its kernels.
    fn call_line(&self, call: &Call) -> String {
        let Call { count, steps, seconds, limit } = call;
        format!(
            "{:.3} ms a call: the limit {:.3}, the rest {:.3}; {steps:.0} kernels a call, {count} call{}",
            seconds * 1e3,
            limit * 1e3,
            (seconds - limit) * 1e3,
            if *count == 1 { "" } else { "s" },
        )
    }

    /// One number of tiles is plain `vision`.
    fn phases(&self) -> impl Iterator<Item = (String, &Phase)> {
        let one = self.runs.vision.len() == 1;
        let vision = self.runs.vision.iter().map(move |(tiles, phase)| match one {
            true => ("vision".to_owned(), phase),
            false => (format!("vision {tiles}"), phase),
        });
        let others = [("prefill", &self.runs.prefill), ("decode", &self.runs.decode)];
        vision.chain(others.map(|(name, phase)| (name.to_owned(), phase)))
    }

    /// Time of all threads in all repetitions that families were timed in.
    fn thread_seconds(&self, phase: &Phase) -> f64 {
        let seconds: f64 = phase.observed.iter().sum();
        seconds * self.runs.threads as f64
    }

    /// From thread seconds of all repetitions to seconds of one.
    fn divisor(&self, phase: &Phase) -> f64 {
        (self.runs.threads * phase.repetitions.len()) as f64
    }

    /// Steps, bytes, operations and time of one repetition, part of the time, share of the limit.
    fn family_line(&self, name: &str, family: &Family, phase: &Phase, total: f64) -> String {
        let repetitions = phase.repetitions.len() as f64;
        let seconds = family.busy / self.runs.threads as f64;
        format!(
            "{:<9} {name:<26} {:>6} {:>11.2} {:>12.3} {:>10.3} {:>5.1}% {:>5.0}%",
            "",
            family.steps as f64 / repetitions,
            family.bytes as f64 / repetitions / 1e6,
            family.operations as f64 / repetitions / 1e9,
            seconds / repetitions * 1e3,
            family.busy / total * 100.0,
            family.floor / seconds * 100.0,
        )
    }

    /// For machines.
    pub fn document(&self) -> Value {
        let [read, floats, bytes] = self.limits();
        let lines = self.lines().into_iter().map(|line| {
            json!({
                "name": line.name,
                "unit": line.unit,
                "rate": line.rate,
                "share": line.share,
                "limit": line.limit,
                "read_bytes": line.read_bytes,
                "calls": line.call.count,
                "steps_per_call": line.call.steps,
                "seconds_per_call": line.call.seconds,
                "limit_seconds_per_call": line.call.limit,
            })
        });
        let families = self.phases().map(|(name, phase)| {
            let total = self.thread_seconds(phase);
            let families = phase.families.iter().map(|(family, numbers)| {
                let seconds = numbers.busy / self.runs.threads as f64;
                let value = json!({
                    "steps": numbers.steps,
                    "bytes": numbers.bytes,
                    "operations": numbers.operations,
                    "seconds": seconds,
                    "time": numbers.busy / total,
                    "share": numbers.floor / seconds,
                });
                (family.clone(), value)
            });
            (name, Value::Object(families.collect()))
        });
        let observed = self
            .phases()
            .map(|(name, phase)| (name, json!(Spread::of(phase.observed.iter().copied()))));
        json!({
            "schema": "sail.bench/2",
            "root": self.program.artifact().root_hash(),
            "target": self.program.manifest().target.name,
            "device": self.program.device(),
            "threads": self.runs.threads,
            "sizes": self.runs.sizes,
            "limits": {
                "read_bytes": read, "operations": floats, "byte_operations": bytes,
                "operations_origin": self.runs.origin,
            },
            "decode_rows": self.runs.decode_rows,
            "observed_seconds": Value::Object(observed.collect()),
            "load_seconds": self.opening.load,
            "start_seconds": self.opening.start,
            "first_token_seconds": Spread::of(self.runs.first_token.0.iter().copied()),
            "first_token_prompt": self.runs.first_token.1,
            "runs": lines.collect::<Vec<_>>(),
            "families": Value::Object(families.collect()),
        })
    }
}

fn line(name: String, phase: &Phase, unit: &'static str, rate: impl Fn(f64) -> f64) -> Line {
    let repetitions = &phase.repetitions;
    let reads =
        |one: &&Repetition| one.work.reading(&one.limits) >= one.work.computing(&one.limits);
    let reading = repetitions.iter().filter(reads).count();
    Line {
        name,
        rate: Spread::of(repetitions.iter().map(|one| rate(one.seconds))),
        unit,
        share: Spread::of(repetitions.iter().map(|one| one.floor() / one.seconds)),
        limit: if 2 * reading > repetitions.len() { "reading" } else { "computing" },
        read_bytes: Spread::of(repetitions.iter().map(|one| one.limits.read_bytes)),
        call: call(repetitions),
    }
}

/// # Panics
///
/// When there are no repetitions.
fn call(repetitions: &[Repetition]) -> Call {
    let mut by_time: Vec<&Repetition> = repetitions.iter().collect();
    by_time.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let middle = by_time[by_time.len() / 2];
    let each = middle.calls.max(1) as f64;
    Call {
        count: middle.calls,
        steps: middle.steps as f64 / each,
        seconds: middle.seconds / each,
        limit: middle.floor() / each,
    }
}

/// `37.2 [30.1 .. 41.0]`, in units of `unit`.
fn spread(of: Spread, unit: f64) -> String {
    format!("{:.1} [{:.1} .. {:.1}]", of.median / unit, of.min / unit, of.max / unit)
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}
