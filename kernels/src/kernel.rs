//! What a kernel is, and how kernels become code.
//!
//! A [`Kernel`] is a checked problem (the sizes a model asks for) with its config (block shapes
//! chosen for one target). [`compile`] turns a list of them into one run of machine code.
//!
//! On x86-64 a compiled kernel is called as
//! `extern "C" fn(arguments: *const *mut u8, control: *const u32, begin: u64, end: u64, workspace: *mut u8)`
//! and computes work items `begin .. end` of its grid. It allocates nothing, calls nothing, and
//! gives the same bytes however the items are cut into calls. The first word of the workspace is 0 in
//! a thread's first call for a step; what a kernel leaves there its later calls for the step find.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use inkwell::context::Context;
use inkwell::targets::FileType;
use sail_ir::help::Help;
use sail_ir::plan::{Cost, Count, Grid, TensorMap};
use sail_ir::target::Target;

use crate::config::Shaped;
use crate::emit::object::{CODE_ALIGNMENT, Flat, flatten};
use crate::emit::{Builder, machine, nvptx, x86_64};

/// How many rows a kernel works on: `count · per` of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rows {
    pub count: Count,
    pub per: u32,
}

impl Rows {
    /// One row for each token.
    pub const TOKENS: Self = Self { count: Count::Tokens, per: 1 };

    /// For a kernel's symbol: `tokens`, `imagesx1024`.
    #[must_use]
    pub fn name(self) -> String {
        let count = match self.count {
            Count::Tokens => "tokens",
            Count::Images => "images",
            Count::Outputs => "outputs",
        };
        if self.per == 1 { count.to_owned() } else { format!("{count}x{}", self.per) }
    }

    /// The grid of a kernel whose items are `rows_per_block` rows by one of `columns` columns.
    #[must_use]
    pub fn grid(self, rows_per_block: u32, columns: u32) -> Grid {
        Grid { count: self.count, per: self.per, rows_per_block, columns, run: 1 }
    }
}

/// How a kernel of a CUDA target is launched: one thread block for each work item of its grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadBlock {
    /// Threads of a block: whole warps of 32, at most 1024.
    pub threads: u32,
    /// Shared memory of a block; what `k.shared` takes together must be within it.
    pub shared_bytes: u32,
    /// Blocks that must fit one multiprocessor at once: bounds the registers of a thread. 0 leaves it
    /// to the assembler.
    pub blocks_per_processor: u32,
    /// Registers of a thread at its start, a multiple of 8; 0 leaves it to the assembler. Needed where
    /// threads give and take registers. Not together with `blocks_per_processor`.
    pub registers: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
    /// Most blocks that are launched: the code then takes further items by itself. 0: one for each item.
    pub most_blocks: u32,
    /// The code lets its successor start and waits for its predecessor itself, after it has asked for
    /// what no kernel writes. Otherwise it does both before anything else. `sm_90` only.
    pub waits_itself: bool,
    /// Tensor maps that the kernel takes after its pointers, in the order of `k.tensor_map`.
    pub tensor_maps: Vec<TensorMap>,
}

impl ThreadBlock {
    /// Blocks of `threads` threads without shared memory.
    #[must_use]
    pub fn of(threads: u32) -> Self {
        Self {
            threads,
            shared_bytes: 0,
            blocks_per_processor: 0,
            registers: 0,
            cluster: 1,
            most_blocks: 0,
            waits_itself: false,
            tensor_maps: Vec::new(),
        }
    }

    /// The same with shared memory.
    #[must_use]
    pub fn with_shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }
}

/// A kernel that makes the first argument of another one.
pub struct Before {
    /// Its last pointer is what it writes; the others are `takes`.
    pub kernel: Box<dyn Kernel>,
    /// Positions of the other kernel's pointers, the first of them the one that is replaced.
    pub takes: Vec<u32>,
    /// Bytes that it writes for each row of its grid.
    pub row_bytes: u64,
}

/// Memory that a kernel of a CUDA target works in: its last two pointers, after those of the op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    /// Bytes for each row of its grid, with any content.
    pub row_bytes: u64,
    /// Counters (i32) for each row of its grid: zeros when it starts, and when it has ended.
    pub row_counters: u32,
}

/// A checked problem with its config for one target.
pub trait Kernel: Sync {
    /// Its row of `KERNELS`.
    fn family(&self) -> &'static str;

    /// One name per problem: `linear.bf16.tokens.n4096.k2048.rms_norm_1e-6`.
    fn symbol(&self) -> String;

    /// Names of the pointers it takes, in their order.
    fn arguments(&self) -> &'static [&'static str];

    /// Positions of the pointers it writes through, ascending; it only reads the others. What it
    /// writes overlaps no other argument.
    fn writes(&self) -> &'static [u32];

    fn grid(&self) -> Grid;

    /// Private scratch of each thread that runs it.
    fn workspace_bytes(&self) -> u64;

    fn cost(&self) -> Cost;

    /// The kernel for the same problem on a CUDA target; `None` where there is none, or where this is
    /// one itself.
    fn on_gpu(&self) -> Option<Box<dyn Kernel>> {
        None
    }

    /// As [`Kernel::on_gpu`], the best for the CUDA `target` where a call has at most `most_rows`
    /// rows of the grid's count.
    fn on_gpu_for(&self, _target: &Target, _most_rows: u32) -> Option<Box<dyn Kernel>> {
        self.on_gpu()
    }

    /// What must run before it, where it takes something else than the op gives; only of kernels for a
    /// CUDA target.
    fn before(&self) -> Option<Before> {
        None
    }

    /// What it works in; only of kernels for a CUDA target, whose blocks join what they have.
    fn scratch(&self) -> Option<Scratch> {
        None
    }

    /// How it is launched on a CUDA target; `None` of a kernel for x86-64.
    fn thread_block(&self) -> Option<ThreadBlock> {
        None
    }

    /// Itself, when its code can be shaped in more than one way.
    fn shaped(&self) -> Option<&dyn Shaped> {
        None
    }

    /// Write the code. Refuses before writing anything, naming problem and config.
    fn emit(&self, k: &mut Builder<'_>) -> Result<(), EmitError>;
}

/// Machine code of several kernels: position-independent, nothing left to resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    pub bytes: Vec<u8>,
    /// Byte at which each kernel's function starts, in the order they were given.
    pub offsets: Vec<u64>,
}

/// Compile `kernels` for the x86-64 `target`, in `threads` threads; the bytes do not depend on `threads`.
///
/// Refuses what a kernel refuses. An [`EmitError`] other than `NoFit` is a defect of ours.
pub fn compile(
    kernels: &[&dyn Kernel],
    target: &Target,
    threads: usize,
) -> Result<Code, EmitError> {
    let mut code = Code { bytes: Vec::new(), offsets: Vec::new() };
    for flat in each(kernels, threads, |kernel| compile_one(kernel, target))? {
        code.bytes.resize(code.bytes.len().next_multiple_of(CODE_ALIGNMENT), 0);
        code.offsets.push(code.bytes.len() as u64 + flat.entry);
        code.bytes.extend_from_slice(&flat.bytes);
    }
    Ok(code)
}

/// `work` for every kernel, in `threads` threads; results in the kernels' order.
pub(crate) fn each<T: Send>(
    kernels: &[&dyn Kernel],
    threads: usize,
    work: impl Fn(&dyn Kernel) -> Result<T, EmitError> + Sync,
) -> Result<Vec<T>, EmitError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<T, EmitError>>>> =
        Mutex::new(kernels.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, kernels.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(kernel) = kernels.get(at) else { break };
                    let result = work(*kernel);
                    done.lock().expect("no thread panics with the lock")[at] = Some(result);
                }
            });
        }
    });
    let done = done.into_inner().expect("all threads are joined");
    done.into_iter().map(|result| result.expect("every kernel was worked on")).collect()
}

fn compile_one(kernel: &dyn Kernel, target: &Target) -> Result<Flat, EmitError> {
    let object = printed(kernel, target, FileType::Object)?;
    flatten(&object, &kernel.symbol()).map_err(|message| EmitError::llvm(kernel, message))
}

/// The assembly text of a kernel, as it will run.
pub fn assembly(kernel: &dyn Kernel, target: &Target) -> Result<String, EmitError> {
    let text = printed(kernel, target, FileType::Assembly)?;
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
}

/// The LLVM IR of a kernel as it was built, before optimisation, its phases as block names.
pub fn llvm_ir(kernel: &dyn Kernel, target: &Target) -> Result<String, EmitError> {
    let context = Context::create();
    Ok(built(&context, kernel, target)?.print_to_string().to_string())
}

fn printed(kernel: &dyn Kernel, target: &Target, kind: FileType) -> Result<Vec<u8>, EmitError> {
    let context = Context::create();
    let module = built(&context, kernel, target)?;
    let machine = match target.gpu() {
        Some(_) => nvptx::machine(target),
        None => x86_64::machine(target),
    };
    machine::optimise(&module, &machine)
        .and_then(|()| machine::print(&module, &machine, kind))
        .map_err(|message| EmitError::llvm(kernel, message))
}

fn built<'c>(
    context: &'c Context,
    kernel: &dyn Kernel,
    target: &Target,
) -> Result<inkwell::module::Module<'c>, EmitError> {
    let (symbol, arguments) = (kernel.symbol(), kernel.arguments());
    let block = kernel.thread_block();
    assert_eq!(block.is_some(), target.gpu().is_some(), "`{symbol}` is not a kernel for {target}");
    let (mut k, declared) = match block {
        None => (Builder::for_calls(context, &symbol, arguments, target), kernel.workspace_bytes()),
        Some(block) => {
            let shared = u64::from(block.shared_bytes);
            (Builder::for_blocks(context, &symbol, arguments, block, target), shared)
        }
    };
    kernel.emit(&mut k)?;
    assert!(
        k.carved() <= declared,
        "`{symbol}` takes {} bytes of workspace or shared memory and declares {declared}",
        k.carved(),
    );
    Ok(k.finish())
}

/// Why a kernel has no code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmitError {
    /// The problem does not fit this kernel or config; another one may do.
    NoFit { kernel: String, cause: String },
    /// LLVM or the layout of its object refused what we wrote.
    Llvm { kernel: String, message: String },
}

impl EmitError {
    /// `kernel` cannot be written because of `cause`.
    #[must_use]
    pub fn no_fit(kernel: &dyn Kernel, cause: impl Into<String>) -> Self {
        Self::NoFit { kernel: kernel.symbol(), cause: cause.into() }
    }

    pub(crate) fn llvm(kernel: &dyn Kernel, message: String) -> Self {
        Self::Llvm { kernel: kernel.symbol(), message }
    }
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFit { kernel, cause } => {
                write!(f, "no code for kernel `{kernel}`\n  because {cause}")
            }
            Self::Llvm { kernel, message } => {
                write!(f, "kernel `{kernel}` could not be compiled\n  because {message}")
            }
        }
    }
}

impl std::error::Error for EmitError {}

impl Help for EmitError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoFit { .. } => "SC0320",
            Self::Llvm { .. } => "SC0321",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoFit { .. } => None,
            Self::Llvm { .. } => {
                Some("this is a defect of the compiler; please report it with this text".to_owned())
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoFit { .. } => 3,
            Self::Llvm { .. } => 101,
        }
    }
}
