//! What a kernel is, and how kernels become code.
//!
//! A [`Kernel`] is a checked problem (the sizes a model asks for) with its config (block shapes
//! chosen for one target). [`compile`] turns a list of them into one run of machine code.
//!
//! On x86-64 a compiled kernel is called as
//! `extern "C" fn(arguments: *const *mut u8, control: *const u32, begin: u64, end: u64, workspace: *mut u8)`
//! and computes work items `begin .. end` of its grid. It allocates nothing, calls nothing, and
//! gives the same bytes however the items are cut into calls.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use inkwell::context::Context;
use inkwell::targets::FileType;
use sail_ir::help::Help;
use sail_ir::plan::{Cost, Count, Grid};
use sail_ir::target::Target;

use crate::config::Shaped;
use crate::emit::object::{CODE_ALIGNMENT, Flat, flatten};
use crate::emit::{Builder, x86_64};

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

/// Compile `kernels` for `target`, in `threads` threads; the bytes do not depend on `threads`.
///
/// Refuses what a kernel refuses. An [`EmitError`] other than `NoFit` is a defect of ours.
pub fn compile(
    kernels: &[&dyn Kernel],
    target: &Target,
    threads: usize,
) -> Result<Code, EmitError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<Flat, EmitError>>>> = Mutex::new(vec![None; kernels.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, kernels.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(kernel) = kernels.get(at) else { break };
                    let flat = compile_one(*kernel, target);
                    done.lock().expect("no thread panics with the lock")[at] = Some(flat);
                }
            });
        }
    });
    let mut code = Code { bytes: Vec::new(), offsets: Vec::new() };
    for flat in done.into_inner().expect("all threads are joined") {
        let flat = flat.expect("every kernel was compiled")?;
        code.bytes.resize(code.bytes.len().next_multiple_of(CODE_ALIGNMENT), 0);
        code.offsets.push(code.bytes.len() as u64 + flat.entry);
        code.bytes.extend_from_slice(&flat.bytes);
    }
    Ok(code)
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
    let machine = x86_64::machine(target);
    x86_64::optimise(&module, &machine)
        .and_then(|()| x86_64::print(&module, &machine, kind))
        .map_err(|message| EmitError::llvm(kernel, message))
}

fn built<'c>(
    context: &'c Context,
    kernel: &dyn Kernel,
    target: &Target,
) -> Result<inkwell::module::Module<'c>, EmitError> {
    let mut k = Builder::new(context, &kernel.symbol(), kernel.arguments(), target);
    kernel.emit(&mut k)?;
    assert!(
        k.carved() <= kernel.workspace_bytes(),
        "`{}` takes {} bytes of workspace and declares {}",
        kernel.symbol(),
        k.carved(),
        kernel.workspace_bytes()
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

    fn llvm(kernel: &dyn Kernel, message: String) -> Self {
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
