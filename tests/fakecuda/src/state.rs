//! What a driver keeps: one GPU with its memory, code, marks and recorded work.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sail_ptxsim::{Device, Fault, Kind, Launch, Module, Options};

use crate::answer::{
    ILLEGAL_ADDRESS, ILLEGAL_INSTRUCTION, INVALID_VALUE, LAUNCH_FAILED, MISALIGNED_ADDRESS,
    NOT_INITIALIZED, OUT_OF_MEMORY, comes_later,
};
use crate::faults::{Call, Faults};
use crate::mutants::Mutants;

/// Shared memory that a block has without asking for more.
const FREE_SHARED: u32 = 48 << 10;

/// See the module.
pub struct State {
    pub faults: Faults,
    pub ready: bool,
    mutants: Option<Mutants>,
    /// What every call answers from now on.
    lost: Option<u32>,
    pub gpu: Device,
    used: u64,
    next: usize,
    pub modules: HashMap<usize, Arc<Module>>,
    pub functions: HashMap<usize, Function>,
    pub events: HashMap<usize, Option<Instant>>,
    pub graphs: HashMap<usize, Arc<Vec<Work>>>,
    /// What the stream records instead of doing it.
    pub recording: Option<Vec<Work>>,
    /// Memory of this machine that was given out.
    pub pinned: HashMap<usize, Layout>,
}

/// A kernel of a module.
pub struct Function {
    pub module: Arc<Module>,
    pub name: String,
    /// Dynamic shared memory it may have.
    pub shared: u32,
}

/// One launch.
#[derive(Clone)]
pub struct Work {
    pub module: Arc<Module>,
    pub name: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    pub shared: u32,
    pub params: Vec<u8>,
    /// It may start before those before it have ended.
    pub early: bool,
}

impl Work {
    /// As the simulator takes it.
    pub fn launch(&self, options: Options) -> Launch<'_> {
        Launch {
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.shared,
            params: &self.params,
            options: Options { cluster: self.cluster, programmatic: self.early, ..options },
        }
    }
}

/// The state, for one call.
pub fn state() -> MutexGuard<'static, State> {
    static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| {
        let faults = Faults::of_environment();
        Mutex::new(State {
            mutants: faults.mutants.as_deref().map(Mutants::open),
            faults,
            ready: false,
            lost: None,
            gpu: Device::new(),
            used: 0,
            next: 0x1000,
            modules: HashMap::new(),
            functions: HashMap::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            recording: None,
            pinned: HashMap::new(),
        })
    });
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Whether calls that need the GPU can be made.
    pub fn alive(&self) -> Result<(), u32> {
        match self.lost {
            Some(code) => Err(code),
            None if self.ready => Ok(()),
            None => Err(NOT_INITIALIZED),
        }
    }

    /// The same, and whether a fault was asked for.
    pub fn begin(&mut self, call: Call) -> Result<(), u32> {
        self.alive()?;
        match self.faults.strike(call) {
            Some(code) if comes_later(code) => {
                self.lost = Some(code);
                // A launch has succeeded by then; a wait is where it shows.
                if call == Call::Wait { Err(code) } else { Ok(()) }
            }
            Some(code) => Err(code),
            None => Ok(()),
        }
    }

    /// A number that no other thing has.
    pub fn handle(&mut self) -> usize {
        self.next += 16;
        self.next
    }

    pub fn alloc(&mut self, bytes: u64) -> Result<u64, u32> {
        self.begin(Call::Alloc)?;
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        if self.used + bytes > self.faults.memory {
            return Err(OUT_OF_MEMORY);
        }
        self.used += bytes;
        Ok(self.gpu.alloc(bytes))
    }

    pub fn free(&mut self, address: u64) -> Result<(), u32> {
        let bytes = match self.gpu.allocation(address) {
            Some((base, bytes)) if base == address => bytes,
            _ => return Err(INVALID_VALUE),
        };
        self.gpu.free(address);
        self.used -= bytes;
        Ok(())
    }

    /// Bytes that are free.
    pub fn left(&self) -> u64 {
        self.faults.memory - self.used
    }

    /// Do a launch, or record it.
    pub fn launch(&mut self, work: Work, allowed: u32) -> Result<(), u32> {
        if work.shared > FREE_SHARED.max(allowed) {
            return Err(INVALID_VALUE);
        }
        match &mut self.recording {
            Some(recorded) => recorded.push(work),
            None => self.carry_out(&work)?,
        }
        Ok(())
    }

    /// Execute a kernel; what it breaks is found later.
    pub fn carry_out(&mut self, work: &Work) -> Result<(), u32> {
        self.begin(Call::Launch)?;
        if self.lost.is_some() {
            return Ok(());
        }
        let done = match &mut self.mutants {
            Some(mutants) => mutants.carry_out(&mut self.gpu, work),
            None => {
                let launch = work.launch(Options::default());
                work.module.launch(&self.gpu, &work.name, &launch).map(drop)
            }
        };
        match done {
            Ok(()) => Ok(()),
            Err(fault) => {
                say(&fault);
                if fault.kind == Kind::Launch {
                    return Err(INVALID_VALUE);
                }
                self.lost = Some(code(fault.kind));
                Ok(())
            }
        }
    }

    /// Whether all went well so far.
    pub fn wait(&mut self) -> Result<(), u32> {
        self.begin(Call::Wait)
    }

    /// Note that a copy touched what it may not.
    pub fn lose(&mut self, fault: &Fault) -> u32 {
        say(fault);
        INVALID_VALUE
    }
}

fn code(kind: Kind) -> u32 {
    match kind {
        Kind::OutOfBounds => ILLEGAL_ADDRESS,
        Kind::Misaligned => MISALIGNED_ADDRESS,
        Kind::Trap => ILLEGAL_INSTRUCTION,
        _ => LAUNCH_FAILED,
    }
}

/// Tell the person who tests what broke a rule.
pub fn say(fault: &Fault) {
    eprintln!("fakecuda: {fault}");
}

/// A handle as the caller keeps it.
pub fn pointer(handle: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(handle)
}
