//! Launches that the simulator carried out, kept as files for `tests/gpucheck`: asked for with
//! `--record-cases FOLDER` before the names of tests.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock};

use half::bf16;
use sail_gpucheck::{Buffer, Case, Head, Role, Twin};
use sail_ir::plan::Cuda;
use sail_ir::target::Target;
use sail_kernels::Kernel;
use sail_kernels::emit::run::poisoned;
use sail_kernels::table::Tolerance;
use sail_tests::harness::{Outcome, failed};
use sail_tests::places::workspace;

use super::approximate::approximate;
use super::check::Buffers;

/// Most bytes of a case that an archive would have to hold: what is larger shows nothing that smaller ones
/// do not.
const MOST_BYTES: usize = 400_000;

/// Bytes that are taken for the same when they stand at several places.
const PIECE: usize = 128;

static FOLDER: OnceLock<PathBuf> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);
static TEXTS: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
static KEPT: LazyLock<Mutex<BTreeSet<(String, String)>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Cases of this thread that wait for what their twins say.
    static OPEN: RefCell<Vec<(PathBuf, Case)>> = const { RefCell::new(Vec::new()) };
}

/// Keep what is simulated from here on in `folder`, which is made empty.
pub fn record_into(folder: PathBuf) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    FOLDER.set(folder).map_err(|_| std::io::Error::other("cases are recorded already"))
}

/// Have another process record in `folder` what the tests launch that `names` name, each of them one.
pub fn record(names: &[&str], folder: &Path) -> Result<(), Outcome> {
    let house = std::env::current_exe().map_err(failed)?;
    let mut record = Command::new(house);
    record.arg("--record-cases").arg(folder).args(names).current_dir(workspace());
    let recorded = record.output().map_err(failed)?;
    let said = String::from_utf8_lossy(&recorded.stdout).into_owned();
    let passed = said.contains(&format!("{} passed, 0 failed", names.len()));
    if recorded.status.success() && passed { Ok(()) } else { Err(failed(said)) }
}

/// All of `list` where cases are recorded, the first `few` elsewhere: what a GPU takes at once, the simulator
/// should not take in every run of the tests.
pub fn daily<T>(list: &[T], few: usize) -> &[T] {
    if FOLDER.get().is_some() { list } else { &list[..few] }
}

/// A launch: what is told to the device, and what it made.
pub struct Launched<'l> {
    pub kernel: &'l dyn Kernel,
    pub target: &'l Target,
    pub cuda: &'l Cuda,
    pub text: &'l str,
    pub blocks: u64,
    pub control: [u32; 4],
    /// What counted maps of tensors count.
    pub counted: u32,
    pub before: &'l Buffers,
    pub after: &'l Buffers,
    /// Bytes of what it works in and of its counters, if it has such.
    pub scratch: Option<[u64; 2]>,
}

/// One kernel has other code in another config.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Target and family of every launch that was small enough to be kept, whether or not that was asked for.
pub fn kept() -> BTreeSet<(String, String)> {
    KEPT.lock().expect("nothing panics under the lock").clone()
}

/// Bytes of `buffers` but for what repeats itself.
fn distinct<'b>(buffers: impl Iterator<Item = &'b Vec<u8>>) -> usize {
    let pieces: HashSet<&[u8]> = buffers.flat_map(|bytes| bytes.chunks(PIECE)).collect();
    pieces.iter().map(|piece| piece.len()).sum()
}

/// Keep a launch, if that was asked for and it is small enough.
pub fn keep(launched: &Launched<'_>) {
    let Launched { kernel, target, cuda, text, blocks, control, counted, .. } = launched;
    let Launched { before, after, scratch, .. } = launched;
    let written = |at: usize| kernel.writes().contains(&(at as u32));
    let outputs = after.iter().enumerate().filter(|(at, _)| written(*at)).map(|(_, bytes)| bytes);
    if distinct(before.iter().chain(outputs)) > MOST_BYTES {
        return;
    }
    let family = kernel.family().to_owned();
    let approximate = approximate(&family, text);
    let named = (target.name.clone(), family.clone());
    KEPT.lock().expect("nothing panics under the lock").insert(named);
    let Some(folder) = FOLDER.get() else { return };

    let uniform = |bytes: &[u8]| match bytes.first() {
        Some(first) if bytes.iter().all(|byte| byte == first) => Some(*first),
        _ => None,
    };
    let role = |at| if written(at) { Role::Written } else { Role::Read };
    let mut buffers: Vec<Buffer> = before
        .iter()
        .enumerate()
        .map(|(at, bytes)| Buffer {
            bytes: bytes.len() as u64,
            uniform: uniform(bytes),
            role: role(at),
        })
        .collect();
    let mut inputs = before.to_vec();
    if let Some([scratch, counters]) = *scratch {
        inputs.extend([poisoned(scratch as usize), vec![0; counters as usize]]);
        let roles = [Role::Scratch, Role::Counters];
        buffers.extend(inputs[before.len()..].iter().zip(roles).map(|(bytes, role)| Buffer {
            bytes: bytes.len() as u64,
            uniform: uniform(bytes),
            role,
        }));
    }
    let map_rows = cuda.tensor_maps.iter();
    let map_rows =
        map_rows.map(|map| map.rows_of(*counted, before[map.argument as usize].len() as u64));
    let head = Head {
        symbol: kernel.symbol(),
        family,
        target: target.name.clone(),
        ptx: format!("{}.{}.{:016x}.ptx", cuda.entry, target.name, hash(text)),
        cuda: (*cuda).clone(),
        map_rows: map_rows.collect(),
        blocks: u32::try_from(*blocks).expect("a grid of blocks"),
        control: control.to_vec(),
        buffers,
        approximate,
        twin: None,
    };
    let outputs = head.buffers.iter().enumerate().map(|(at, buffer)| match buffer.role {
        Role::Written => Some(after[at].clone()),
        Role::Read | Role::Scratch | Role::Counters => None,
    });
    let outputs = outputs.collect();
    let case = Case { head, before: inputs, after: outputs, twin: Vec::new() };
    let file = case.head.ptx.clone();
    if TEXTS.lock().expect("nothing panics under the lock").insert(file.clone()) {
        fs::write(folder.join(file), text).expect("a folder that was just made takes files");
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("{number:05}.case"));
    case.write(&path).expect("a folder that was just made takes files");
    OPEN.with_borrow_mut(|open| {
        // A comparison comes right behind its launches.
        open.retain(|(_, other)| other.head.target != case.head.target);
        open.push((path, case));
    });
}

/// Note what a twin says of an output of the last launch on `target`, if it was kept.
pub fn twin(target: &Target, got: &[u8], want: &[f64], tolerance: &Tolerance) {
    if FOLDER.get().is_none() {
        return;
    }
    OPEN.with_borrow_mut(|open| {
        let kept = open.iter_mut().find(|(_, case)| case.head.target == target.name);
        let Some((path, case)) = kept else { return };
        let is_it = |bytes: &Option<Vec<u8>>| bytes.as_deref().is_some_and(|bytes| bytes == got);
        let Some(buffer) = case.after.iter().position(is_it) else { return };
        assert_eq!(got.len(), want.len() * size_of::<bf16>(), "one value for each wanted");
        let Tolerance { relative, absolute, .. } = *tolerance;
        case.head.twin = Some(Twin { buffer, values: want.len() as u64, relative, absolute });
        case.twin = want.iter().map(|value| *value as f32).collect();
        case.write(path).expect("a folder that was just made takes files");
    });
}
