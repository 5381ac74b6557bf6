//! The measurements: vision, prefill, decode and a first token, each beside the machine's limits.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::time::Instant;

use half::bf16;
use sail_ir::id::KernelId;
use serde::Serialize;

use crate::cli::experts::ExpertProfiler;
use crate::cli::measure::{Origin, Probe};
use crate::cli::progress::Progress;
use crate::cli::{Failure, boxed};
use crate::device::signal;
use crate::error::ContextError;
use crate::execute::{Done, Engine, Outputs, Row, Tokens, Twin};
use crate::image::Rgb;
use crate::trace::{Limits, Work};
use crate::{Picture, Program, Request, RunError, Session};

/// How much of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sizes {
    pub prefill: u32,
    pub decode: u32,
    /// Conversations that are decoded together.
    pub batch: u32,
    /// Tiles of each call of the vision tower that is measured.
    pub tiles: Vec<u32>,
    pub repeat: u32,
}

/// All measurements.
pub struct Runs {
    pub sizes: Sizes,
    pub threads: usize,
    /// Where the limit of operations comes from.
    pub origin: Origin,
    /// Whether the device tells its limits by itself: a GPU.
    pub gpu: bool,
    /// Most conversations of one call of `decode`.
    pub decode_rows: u32,
    /// One for each number of tiles; none without eyes.
    pub vision: Vec<(u32, Phase)>,
    pub prefill: Phase,
    pub decode: Phase,
    /// Seconds from a question (with a picture of one tile, if the model has eyes) to the first
    /// token, and tokens of its prompt.
    pub first_token: (Vec<f64>, usize),
}

/// Repetitions of one kind of work.
#[derive(Default)]
pub struct Phase {
    pub repetitions: Vec<Repetition>,
    /// Seconds of the repetitions that the times of families are from: the same where taking them
    /// costs nothing, others where it does.
    pub observed: Vec<f64>,
    pub families: BTreeMap<String, Family>,
}

/// One repetition and the limits beside it.
pub struct Repetition {
    pub seconds: f64,
    pub work: Work,
    pub limits: Limits,
    pub calls: u64,
    /// Steps of all calls; on a GPU each is the launch of a kernel.
    pub steps: u64,
}

impl Repetition {
    /// Seconds that its work needs at the limits.
    pub fn floor(&self) -> f64 {
        self.work.floor(&self.limits)
    }
}

/// What all steps of one kernel family did in all repetitions.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Family {
    pub steps: u64,
    pub bytes: u64,
    pub operations: u64,
    /// Time of all threads together.
    pub busy: f64,
    /// Time that its steps need at the limits, each on its own.
    pub floor: f64,
}

/// What is measured, and who hears of it.
pub struct Watched<'p> {
    pub program: &'p Program,
    pub probe: &'p Probe<'p>,
    pub profiler: Option<&'p ExpertProfiler>,
}

/// Tokens of the first prompt.
pub const FIRST_TOUCH: u32 = 16;

/// A short prompt through a program that was just opened: its weights are touched for the first time,
/// and are hashed beside.
pub fn first_touch(program: &Program) -> Result<(), RunError> {
    let count = FIRST_TOUCH.min(program.context());
    read(&mut program.engine(), count, &mut |_| {})
}

/// Carry everything out.
///
/// Refuses a context that has no room for the tokens or for the places of the image tiles, and gives
/// up on Ctrl-C.
pub fn measure(
    watched: &Watched<'_>,
    sizes: Sizes,
    progress: &mut Progress,
) -> Result<Runs, Failure> {
    let Watched { program, probe, profiler } = *watched;
    has_room_for_text(program, &sizes)?;
    let tiles = sizes.tiles.iter().copied().max().unwrap_or(0);
    let image_positions = program.manifest().tiling.tokens_per_tile.saturating_mul(tiles);
    let pictures = ContextError { tiles, image_positions, ..nothing_asked(program) };
    has_room(program, pictures)?;
    let pixels = pixels(&program.engine());
    let mut bench = Bench { program, sizes, probe, profiler, pixels };
    bench.carry_out(progress).map_err(boxed)
}

/// Refuses a context without room for the prompt and the tokens after it.
pub(super) fn has_room_for_text(program: &Program, sizes: &Sizes) -> Result<(), Failure> {
    let text_positions = sizes.prefill.saturating_add(sizes.decode);
    has_room(program, ContextError { text_positions, ..nothing_asked(program) })
}

fn nothing_asked(program: &Program) -> ContextError {
    ContextError {
        used: 0,
        tiles: 0,
        image_positions: 0,
        text_positions: 0,
        context: program.context(),
        max_context: program.manifest().plan.cache.max_positions,
    }
}

fn has_room(program: &Program, asked: ContextError) -> Result<(), Failure> {
    match asked.needed() > u64::from(program.context()) {
        true => Err(boxed(RunError::Context(asked))),
        false => Ok(()),
    }
}

/// One run of a phase; it tells the watch of every call.
type Repeated<'w> = &'w dyn Fn(&mut Engine, &mut dyn FnMut(&Done)) -> Result<(), RunError>;

struct Bench<'p> {
    program: &'p Program,
    sizes: Sizes,
    probe: &'p Probe<'p>,
    profiler: Option<&'p ExpertProfiler>,
    /// Pictures of no particular content, for the largest call.
    pixels: Vec<bf16>,
}

impl Bench<'_> {
    fn carry_out(&mut self, progress: &mut Progress) -> Result<Runs, RunError> {
        let Sizes { prefill: depth, decode: count, batch, repeat, .. } = self.sizes;
        let eyes = self.program.engine().has("vision", Twin::Production);
        let tiles = if eyes { self.sizes.tiles.as_slice() } else { &[] };
        let total = repeat * (3 + tiles.len() as u32);
        let mut done = 0;
        let mut tick = || {
            done += 1;
            progress.show("bench", done, total);
        };
        let mut vision: Vec<_> = tiles.iter().map(|tiles| (*tiles, Phase::default())).collect();
        let mut prefill = Phase::default();
        let mut decode = Phase::default();
        let apart = self.program.engine().want_times(false);
        for slot in 1..batch {
            read_into(&mut self.program.engine(), slot, depth, &mut |_| {})?;
        }
        if apart {
            self.prepare(tiles)?;
        }
        let mut first = (Vec::new(), 0);
        for _ in 0..repeat {
            for (tiles, phase) in &mut vision {
                self.repetition(phase, apart, &|engine, watch| {
                    see(engine, *tiles, &self.pixels, watch)
                })?;
                tick();
            }
            self.repetition(&mut prefill, apart, &|engine, watch| read(engine, depth, watch))?;
            tick();
            self.repetition(&mut decode, apart, &|engine, watch| {
                write(engine, depth..depth + count, batch, watch)
            })?;
            tick();
            let (seconds, tokens) = self.first_token(!tiles.is_empty())?;
            first.0.push(seconds);
            first.1 = tokens;
            tick();
        }
        Ok(Runs {
            sizes: self.sizes.clone(),
            threads: self.probe.threads,
            origin: self.probe.origin(),
            gpu: self.probe.tells(),
            decode_rows: self.program.engine().decode_rows(),
            vision,
            prefill,
            decode,
            first_token: first,
        })
    }

    /// Twice through everything that a device does otherwise the first two times: it loads kernels,
    /// and records calls.
    fn prepare(&self, tiles: &[u32]) -> Result<(), RunError> {
        let Sizes { prefill: depth, batch, .. } = self.sizes;
        let mut engine = self.program.engine();
        for _ in 0..2 {
            for tiles in tiles {
                see(&mut engine, *tiles, &self.pixels, &mut |_| {})?;
            }
            read(&mut engine, depth, &mut |_| {})?;
            write(&mut engine, depth..depth + 1, batch, &mut |_| {})?;
        }
        Ok(())
    }

    /// Limits, the work, limits again; then, where taking times of steps is kept `apart`, the work
    /// once more with them.
    fn repetition(
        &self,
        phase: &mut Phase,
        apart: bool,
        work: Repeated<'_>,
    ) -> Result<(), RunError> {
        let before = self.probe.measure()?;
        let once = Once::of(self.program, work, self.profiler)?;
        let after = self.probe.measure()?;
        let limits = Limits {
            read_bytes: (before.read_bytes + after.read_bytes) / 2.0,
            operations: (before.operations + after.operations) / 2.0,
            byte_operations: (before.byte_operations + after.byte_operations) / 2.0,
        };
        let mut all = Work::default();
        once.steps.iter().for_each(|(_, work, _)| all += *work);
        phase.repetitions.push(Repetition {
            seconds: once.seconds,
            work: all,
            limits,
            calls: once.calls,
            steps: once.steps.len() as u64,
        });
        let observed = match apart {
            false => once,
            true => {
                self.program.engine().want_times(true);
                let again = Once::of(self.program, work, None);
                self.program.engine().want_times(false);
                again?
            }
        };
        phase.observed.push(observed.seconds);
        let kernels = &self.program.manifest().plan.kernels;
        for (kernel, work, busy) in observed.steps {
            let family = phase.families.entry(kernels[kernel].family.clone()).or_default();
            family.steps += 1;
            family.bytes += work.bytes;
            family.operations += work.all_operations();
            family.busy += busy as f64 / 1e9;
            family.floor += work.floor(&limits);
        }
        Ok(())
    }

    fn first_token(&self, eyes: bool) -> Result<(f64, usize), RunError> {
        let mut session = Session::new(self.program)?;
        let side = self.program.manifest().tiling.tile_size;
        let bytes = (0..3 * side * side).map(|index| (index % 251) as u8).collect();
        let pixels = Rgb::new(side, side, bytes)
            .map_err(|error| RunError::Picture { name: "one tile".to_owned(), error })?;
        let pictures = [Picture::pixels("one tile", &pixels)];
        let mut request = Request::new(self.program, "Describe the image.");
        if eyes {
            request.pictures = &pictures;
        }
        request.max_tokens = 1;
        request.interrupt = signal::stop_wish();
        let answer = session.ask(&request, &mut |_| {})?;
        Ok((answer.timings.first_token, answer.timings.prompt_tokens))
    }
}

/// The work of a phase, carried out once.
struct Once {
    seconds: f64,
    calls: u64,
    /// Kernel, work and time of every step of every call; 0 where times were not taken.
    steps: Vec<(KernelId, Work, u64)>,
}

impl Once {
    fn of(
        program: &Program,
        work: Repeated<'_>,
        profiler: Option<&ExpertProfiler>,
    ) -> Result<Self, RunError> {
        let (mut calls, mut steps) = (0, Vec::new());
        let mut watch = |done: &Done| {
            if let Some(profiler) = profiler {
                profiler.hear(done);
            }
            calls += 1;
            let times = done.times.iter().map(|time| time.busy).chain(iter::repeat(0));
            let all = done.function.steps.iter().zip(times);
            steps.extend(all.map(|((_, step), busy)| (step.kernel, Work::of(step, done), busy)));
        };
        let start = Instant::now();
        work(&mut program.engine(), &mut watch)?;
        Ok(Self { seconds: start.elapsed().as_secs_f64(), calls, steps })
    }
}

fn pixels(engine: &Engine) -> Vec<bf16> {
    let layout = engine.layout();
    let values = 0..layout.tile_values * u64::from(layout.max_images);
    values.map(|index| bf16::from_f32((index % 509) as f32 / 128.0 - 2.0)).collect()
}

fn see(
    engine: &mut Engine,
    tiles: u32,
    pixels: &[bf16],
    watch: &mut dyn FnMut(&Done),
) -> Result<(), RunError> {
    let mut fill = |_: Range<usize>, out: &mut [bf16]| out.copy_from_slice(&pixels[..out.len()]);
    engine.vision(Twin::Production, tiles, &mut fill, signal::stop_wish(), watch)?;
    Ok(())
}

/// A prompt of ids of no particular meaning, from an empty cache on.
fn read(engine: &mut Engine, count: u32, watch: &mut dyn FnMut(&Done)) -> Result<(), RunError> {
    read_into(engine, 0, count, watch)
}

pub(super) fn read_into(
    engine: &mut Engine,
    slot: u32,
    count: u32,
    watch: &mut dyn FnMut(&Done),
) -> Result<(), RunError> {
    let ids: Vec<u32> = (0..count).map(|index| id(engine, index)).collect();
    let image_rows = vec![-1; ids.len()];
    engine.hold(slot, count).map_err(RunError::Full)?;
    let tokens = Tokens { slot, start: 0, ids: &ids, image_rows: &image_rows };
    engine.prefill(Twin::Production, tokens, Outputs::Last, signal::stop_wish(), watch)?;
    Ok(())
}

/// Tokens of `batch` conversations after the prompts that [`read_into`] has left in the cache, in as
/// many calls as the largest class needs; several tokens at once where the device chooses them.
pub(super) fn write(
    engine: &mut Engine,
    positions: Range<u32>,
    batch: u32,
    watch: &mut dyn FnMut(&Done),
) -> Result<(), RunError> {
    let together = engine.decode_rows() as usize;
    let mut rows = Vec::with_capacity(batch as usize);
    let mut position = positions.start;
    while position < positions.end {
        let ahead = engine.most_ahead().min(positions.end - position);
        let times = ahead.max(1);
        rows.clear();
        for slot in 0..batch {
            engine.hold(slot, position + times).map_err(RunError::Full)?;
            rows.push(Row { slot, position, id: id(engine, position.wrapping_add(slot)) });
        }
        for rows in rows.chunks(together) {
            match ahead {
                0 => engine.decode(rows, signal::stop_wish(), watch)?,
                _ => drop(engine.decode_ahead(rows, &[], times, signal::stop_wish(), watch)?),
            }
        }
        position += times;
    }
    Ok(())
}

fn id(engine: &Engine, index: u32) -> u32 {
    let vocabulary = u32::try_from(engine.layout().vocabulary).unwrap_or(u32::MAX);
    index.wrapping_mul(7919) % vocabulary
}
