//! An artifact, opened, checked, mapped and ready on a device.
//!
//! [`Program::open`] checks header, manifest, plan and code before anything runs. The weights are
//! hashed in the background beside the first work, unless [`Options::verify_first`] asks to wait;
//! [`Program::verified`] says how that went, and sessions ask it before they answer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use sail_ir::artifact::{self, Artifact, ArtifactError, Machine, Manifest};
use sail_ir::plan::Plan;

use crate::RunError;
pub use crate::device::host::WeightsMemory;
use crate::device::host::pin;
use crate::device::{Capacity, Device, DeviceError, Layout, cuda, host, null};
use crate::execute::{Done, Engine};
use crate::image;
use crate::text::Text;

/// What carries out the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// What the artifact was compiled for: this machine's processor, or its first GPU.
    #[default]
    Auto,
    /// This machine's processor.
    Host,
    /// A GPU of NVIDIA's, by its number.
    Cuda { ordinal: u32 },
    /// Nothing; calls are checked as if.
    Null,
}

/// How to open a program.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub device: DeviceKind,
    /// All processors this process may use, when `None`.
    pub threads: Option<usize>,
    /// Positions of a conversation; [`DEFAULT_CONTEXT`] or what the artifact has, when `None`.
    pub context: Option<u32>,
    /// Conversations at once; at least one.
    pub slots: u32,
    /// Whether tapped functions will be called.
    pub taps: bool,
    /// Whether to take the time of every step.
    pub times: bool,
    /// Where the weights are while the program runs.
    pub weights: WeightsMemory,
    /// Hash the weights before the first work instead of beside it.
    pub verify_first: bool,
}

/// Positions of a conversation unless asked otherwise.
pub const DEFAULT_CONTEXT: u32 = 8192;

/// Hears of calls; see [`Program::watch`].
pub type Watcher = Box<dyn FnMut(&Plan, &Done) + Send>;

/// See the module. Sessions borrow it; it is shared between threads.
pub struct Program {
    artifact: Arc<Artifact>,
    text: Text,
    /// Hears of every call of a session.
    watcher: Mutex<Option<Watcher>>,
    engine: Mutex<Engine>,
    check: WeightCheck,
    /// Slots nobody has.
    free_slots: Mutex<Vec<u32>>,
    context: u32,
    device: String,
    remark: Option<String>,
}

impl Program {
    /// Open a file and make it ready.
    ///
    /// Refuses what [`Artifact::open`] refuses, an artifact for other machines or another kind of
    /// device (unless the device is `null`), a context beyond the artifact's or beyond memory, and what the device refuses.
    pub fn open(path: &Path, options: &Options) -> Result<Self, RunError> {
        let file = path.display().to_string();
        let artifact = Artifact::open(path)
            .map_err(|error| RunError::Artifact { file: file.clone(), error })?;
        let kind = resolve(options.device, artifact.manifest(), &file)?;
        if kind == DeviceKind::Host {
            artifact::check(artifact.manifest(), &Machine::this())
                .map_err(|error| RunError::Incompatible { file: file.clone(), error })?;
        }
        let artifact = Arc::new(artifact);
        let check = WeightCheck::start(&artifact);
        if options.verify_first {
            check.wait().map_err(|error| RunError::Artifact { file: file.clone(), error })?;
        }
        let manifest = artifact.manifest();
        let text = Text::new(artifact.tokenizer(), &manifest.prompt).map_err(RunError::Text)?;
        let plan = manifest.plan.clone();
        let copied = match options.weights {
            WeightsMemory::Map if artifact.recipe().is_none() => 0,
            WeightsMemory::Map | WeightsMemory::Huge => artifact.weight_bytes(),
        };
        let (layout, threads) = plan_memory(&plan, options, (kind, copied), &file)?;
        check_sizes(manifest, &layout, &file)?;
        let context = layout.capacity.context;
        let device: Box<dyn Device> = match kind {
            DeviceKind::Auto | DeviceKind::Host => {
                Box::new(host::Host::new(&artifact, &layout, threads, options.weights)?)
            }
            DeviceKind::Cuda { ordinal } => {
                let made = cuda::Cuda::new(&artifact, &layout, ordinal);
                Box::new(made.map_err(|error| RunError::of_device(error, &file))?)
            }
            DeviceKind::Null => Box::new(null::Null::new(&plan, &layout)),
        };
        Ok(Self {
            device: device.describe(),
            remark: device.remark(),
            free_slots: Mutex::new((0..layout.capacity.slots).rev().collect()),
            engine: Mutex::new(Engine::new(device, plan, layout)),
            text,
            watcher: Mutex::new(None),
            artifact,
            check,
            context,
        })
    }

    #[must_use]
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.artifact.manifest()
    }

    /// The file's name, for messages.
    #[must_use]
    pub fn file(&self) -> String {
        self.artifact.path().display().to_string()
    }

    /// Positions of a conversation.
    #[must_use]
    pub fn context(&self) -> u32 {
        self.context
    }

    /// What it runs on, for people.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What works on it but not as it was meant to, and why.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// The executor, for one caller at a time. Needed for more than conversations only: taps,
    /// benches, verification.
    pub fn engine(&self) -> MutexGuard<'_, Engine> {
        // A caller that panicked between calls leaves no state that the next call does not set.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokenizer and the form of conversations.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// Have `watcher` hear of every call that a session makes from now on. The times of steps are
    /// there when [`Options::times`] asked for them.
    pub fn watch(&self, watcher: Option<Watcher>) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = watcher;
    }

    /// Whether somebody hears of every call.
    pub(crate) fn is_watched(&self) -> bool {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(crate) fn tell(&self, done: &Done) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = &mut *watcher {
            watcher(&self.artifact.manifest().plan, done);
        }
    }

    /// Whether the weights are those that were written, as far as is known: `Ok(false)` while
    /// nobody knows yet.
    pub fn verified(&self) -> Result<bool, RunError> {
        if self.check.state.outcome.get().is_none() {
            return Ok(false);
        }
        self.wait_verified().map(|()| true)
    }

    /// Wait until the weights are hashed.
    ///
    /// Refuses damage.
    pub fn wait_verified(&self) -> Result<(), RunError> {
        self.check.wait().map_err(|error| RunError::Artifact { file: self.file(), error })
    }

    /// Bytes of the weights hashed so far, and all of them.
    #[must_use]
    pub fn verify_progress(&self) -> (u64, u64) {
        let all = match self.artifact.recipe() {
            Some(_) => 0, // hashed when it was opened
            None => self.artifact.weights().bytes,
        };
        (self.check.state.done.load(Ordering::Relaxed), all)
    }

    /// A slot for a conversation, `None` when all are taken.
    pub(crate) fn take_slot(&self) -> Option<u32> {
        self.slots().pop()
    }

    /// Let another conversation have a slot.
    pub(crate) fn give_slot(&self, slot: u32) {
        self.slots().push(slot);
    }

    fn slots(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free_slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device to take: what was asked for, if the artifact was compiled for such a one.
fn resolve(wanted: DeviceKind, manifest: &Manifest, file: &str) -> Result<DeviceKind, RunError> {
    let target = &manifest.target;
    let unfit = |device: &str, instead: &str| RunError::Unfit {
        file: file.to_owned(),
        what: format!(
            "`--device {device}` does not run this artifact\n  because it was compiled for `{target}`"
        ),
        hint: Some(format!(
            "without `--device` it runs on {instead}, `--target` chooses when compiling"
        )),
    };
    match (wanted, target.gpu().is_some()) {
        (DeviceKind::Auto, true) => Ok(DeviceKind::Cuda { ordinal: 0 }),
        (DeviceKind::Auto, false) => Ok(DeviceKind::Host),
        (DeviceKind::Host, true) => Err(unfit("host", "a GPU")),
        (DeviceKind::Cuda { ordinal }, false) => {
            Err(unfit(&format!("cuda:{ordinal}"), "this machine's processor"))
        }
        (device, _) => Ok(device),
    }
}

/// Sizes for the options, within the artifact's and the machine's; `copied` bytes of weights come
/// on top.
fn plan_memory(
    plan: &Plan,
    options: &Options,
    (device, copied): (DeviceKind, u64),
    file: &str,
) -> Result<(Layout, usize), RunError> {
    let most = plan.cache.max_positions;
    let context = options.context.unwrap_or(DEFAULT_CONTEXT.min(most));
    let unfit = |what: String, hint: Option<&str>| {
        let hint = hint.map(str::to_owned);
        RunError::Unfit { file: file.to_owned(), what, hint }
    };
    if context == 0 || context > most {
        let what = format!(
            "a context of {context} positions is not possible\n  because the artifact has 1 to {most}"
        );
        return Err(unfit(what, Some("leave `--context` out to have a usual one")));
    }
    let missing = ["prefill", "decode"].into_iter().find(|name| plan.function(name).is_none());
    if let Some(name) = missing {
        return Err(unfit(format!("the artifact has no function `{name}`"), None));
    }
    if options.taps && plan.function("prefill.taps").is_none() {
        return Err(unfit("the artifact has no taps".to_owned(), None));
    }
    let capacity =
        Capacity { slots: options.slots.max(1), context, taps: options.taps, times: options.times };
    let threads = options.threads.unwrap_or_else(host::processors).max(1);
    let sized = Layout::new(plan, capacity).and_then(|layout| {
        Some((layout.total_bytes(threads as u64)?.checked_add(copied)?, layout))
    });
    let Some((bytes, layout)) = sized else {
        return Err(unfit("the artifact's sizes are beyond this machine".to_owned(), None));
    };
    match memory_bytes() {
        Some(memory) if bytes > memory && device == DeviceKind::Host => {
            let because = format!("the machine has {} MB in all", memory / 1_000_000);
            Err(DeviceError::Memory { what: "a run", bytes, because }.into())
        }
        _ => Ok((layout, threads)),
    }
}

/// What the manifest says about pictures is what the functions read and write.
fn check_sizes(manifest: &Manifest, layout: &Layout, file: &str) -> Result<(), RunError> {
    let tiling = &manifest.tiling;
    image::check(tiling).map_err(|error| RunError::Picture { name: file.to_owned(), error })?;
    let pixels = 3 * u64::from(tiling.tile_size).pow(2);
    let agree = manifest.plan.function("vision").is_none()
        || (pixels == layout.tile_values && u64::from(tiling.tokens_per_tile) == layout.tile_rows);
    let fits = manifest.model.decoder.vocabulary <= layout.vocabulary;
    if agree && fits {
        return Ok(());
    }
    let what = format!(
        "the artifact's sizes disagree\n  because pictures have {pixels} values and {} places, \
         its functions {} and {}",
        tiling.tokens_per_tile, layout.tile_values, layout.tile_rows
    );
    Err(RunError::Unfit { file: file.to_owned(), what, hint: None })
}

/// Memory of the machine, where it says so.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Hashing of the weights on a thread of its own.
struct WeightCheck {
    state: Arc<CheckState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct CheckState {
    cancel: AtomicBool,
    done: AtomicU64,
    outcome: OnceLock<Result<(), ArtifactError>>,
}

impl WeightCheck {
    fn start(artifact: &Arc<Artifact>) -> Self {
        let state = Arc::new(CheckState::default());
        let (theirs, weights) = (Arc::clone(&state), Arc::clone(artifact));
        let thread = thread::Builder::new()
            .name("sail-verify".to_owned())
            .spawn(move || {
                pin::give_way();
                theirs.work(&weights);
            })
            .ok();
        if thread.is_none() {
            // The system starts no thread: then there is nothing it could run beside.
            state.work(artifact);
        }
        Self { state, thread }
    }

    fn wait(&self) -> Result<(), ArtifactError> {
        match self.state.outcome.wait() {
            Ok(()) => Ok(()),
            Err(ArtifactError::Damaged { part }) => {
                Err(ArtifactError::Damaged { part: part.clone() })
            }
            Err(ArtifactError::Io { doing, path, error }) => {
                let error = error.kind().into();
                Err(ArtifactError::Io { doing, path: path.clone(), error })
            }
            Err(_) => Err(ArtifactError::Cancelled),
        }
    }
}

impl CheckState {
    fn work(&self, artifact: &Artifact) {
        let result =
            artifact.verify_weights(&self.cancel, |done| self.done.store(done, Ordering::Relaxed));
        // Nobody else sets it: there is one thread for each state.
        let _ = self.outcome.set(result);
    }
}

impl Drop for WeightCheck {
    fn drop(&mut self) {
        self.state.cancel.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only ends by returning, and what it found was asked for or is not wanted.
            let _ = thread.join();
        }
    }
}
