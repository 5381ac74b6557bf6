//! What stops a kernel: the kind of the fault, where it happened, and a sentence about it.

use std::fmt;

/// What kind of rule was broken; tests match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text has a form or an instruction that is not known here.
    Text,
    /// The launch does not fit the kernel.
    Launch,
    /// An address outside of every allocation, or across the end of one.
    OutOfBounds,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A register, or a byte of memory, was read before anything was written to it.
    Uninitialised,
    /// Two threads touched a byte, one of them writing, and nothing ordered them.
    Race,
    /// A result was touched while the asynchronous operation that makes it was under way.
    InFlight,
    /// Ordinary accesses and asynchronous hardware met without `fence.proxy.async`.
    Proxy,
    /// A barrier was used with a wrong count or by threads that may not use it.
    Barrier,
    /// Threads of a warp came apart where the instruction needs all of them.
    Divergence,
    /// Every thread waits.
    Deadlock,
    /// An operand has a value that the instruction does not allow.
    Operand,
    /// The kernel ran `trap`.
    Trap,
    /// More instructions than the launch allowed.
    Budget,
}

/// A broken rule, with the place of the first offence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub kernel: String,
    /// Line of the PTX text, from 1; 0 where no line is to blame.
    pub line: u32,
    /// The text of that line.
    pub text: String,
    /// Block and thread indices; absent before a kernel runs.
    pub place: Option<([u32; 3], [u32; 3])>,
    pub sentence: String,
}

impl Fault {
    pub(crate) fn new(kind: Kind, sentence: impl Into<String>) -> Self {
        Self {
            kind,
            kernel: String::new(),
            line: 0,
            text: String::new(),
            place: None,
            sentence: sentence.into(),
        }
    }

    pub(crate) fn at_line(mut self, line: u32) -> Self {
        self.line = line;
        self
    }

    pub(crate) fn in_text(mut self, kernel: &str, source: &str) -> Self {
        if self.kernel.is_empty() {
            kernel.clone_into(&mut self.kernel);
        }
        if self.text.is_empty() && self.line > 0 {
            let line = source.lines().nth(self.line as usize - 1);
            line.unwrap_or_default().trim().clone_into(&mut self.text);
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sentence)?;
        if self.line > 0 {
            write!(f, " at line {} `{}`", self.line, self.text)?;
        }
        if !self.kernel.is_empty() {
            write!(f, " of kernel `{}`", self.kernel)?;
        }
        if let Some((block, thread)) = self.place {
            write!(f, " in block {block:?} thread {thread:?}")?;
        }
        write!(f, " ({:?})", self.kind)
    }
}

impl std::error::Error for Fault {}

/// A fault while one warp executes: which lane, what kind, what to say.
#[derive(Debug)]
pub(crate) struct Stop {
    pub kind: Kind,
    pub lane: u32,
    pub sentence: String,
}

pub(crate) fn stop<T>(kind: Kind, lane: u32, sentence: impl Into<String>) -> Result<T, Stop> {
    Err(Stop { kind, lane, sentence: sentence.into() })
}
