//! Decoded kernels: compact instructions over numbered registers.
//!
//! Every word operand is a register slot: constants and special registers are slots that are filled
//! before a warp starts, so that an instruction need not ask what its sources are.

use std::sync::Arc;

use crate::hopper::Hopper;
use crate::scalar::convert::Conversion;
use crate::scalar::{Function, Relation};

/// A slot that is not there: an absent result, `_`.
pub(crate) const NONE: u32 = u32::MAX;

/// Windows of generic addresses; global memory lies above them.
pub(crate) const SHARED_WINDOW: u64 = 1 << 40;
pub(crate) const LOCAL_WINDOW: u64 = 2 << 40;
pub(crate) const PARAM_WINDOW: u64 = 3 << 40;
/// Tables that a module declares: only read.
pub(crate) const TABLE_WINDOW: u64 = 4 << 40;
pub(crate) const WINDOW: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// How an access is ordered against those of other threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Weak,
    /// Relaxed and volatile: no race with others of its kind, but nothing is published.
    Relaxed,
    Acquire,
    Release,
    Both,
}

impl Order {
    pub(crate) fn acquires(self) -> bool {
        matches!(self, Self::Acquire | Self::Both)
    }

    pub(crate) fn releases(self) -> bool {
        matches!(self, Self::Release | Self::Both)
    }
}

/// Slot of a base address, and what is added to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub base: u32,
    pub offset: i64,
}

/// A predicate and whether its negation is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pred {
    pub slot: u32,
    pub negated: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub space: Space,
    pub order: Order,
    /// Bytes of one element.
    pub size: u32,
    pub signed: bool,
    pub address: Address,
    /// Registers, one an element; `NONE` for `_`.
    pub regs: Vec<u32>,
    /// Width in bits of the registers.
    pub width: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    Add,
    AddF32,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
    Increment,
    Decrement,
}

#[derive(Clone, Debug)]
pub(crate) struct Atomic {
    pub op: AtomicOp,
    pub space: Space,
    pub order: Order,
    pub size: u32,
    pub signed: bool,
    pub address: Address,
    /// `NONE` for `red`.
    pub dest: u32,
    pub a: u32,
    pub b: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduce {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// Element types of tensor-core operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Bf16,
    F16,
    E4m3,
    S8,
    U8,
}

impl Element {
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::E4m3 | Self::S8 | Self::U8 => 1,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Mma {
    pub left: Element,
    pub right: Element,
    /// Inner elements.
    pub k: u32,
    pub d: Vec<u32>,
    pub a: Vec<u32>,
    pub b: Vec<u32>,
    pub c: Vec<u32>,
}

/// `ldmatrix`, or `stmatrix` where `store` stands.
#[derive(Clone, Debug)]
pub(crate) struct Matrices {
    pub space: Space,
    pub store: bool,
    pub transposed: bool,
    pub regs: Vec<u32>,
    pub address: Address,
}

/// `cp.async`: `size` bytes of room, of which `source` (a slot, or all) are read.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub to: Address,
    pub from: Address,
    pub size: u32,
    pub source: u32,
}

/// How two predicates of a warp become one, lane by lane.
pub(crate) type Join = fn(u32, u32) -> u32;

/// `setp`: the relation, joined with a predicate if one is named.
#[derive(Clone, Debug)]
pub(crate) struct Compare {
    pub relation: Relation,
    pub a: u32,
    pub b: u32,
    pub to: u32,
    pub to_inverse: u32,
    pub join: Option<(Join, Pred)>,
}

/// `bar`/`barrier`: which barrier, how many threads (all, where `NONE`).
#[derive(Clone, Debug)]
pub(crate) struct Barrier {
    pub id: u32,
    pub count: u32,
    pub waits: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Scalar {
        function: Function,
        d: u32,
        s: [u32; 3],
    },
    Convert {
        conversion: Box<Conversion>,
        d: u32,
        mask: u64,
        a: u32,
        b: u32,
    },
    Insert {
        d: u32,
        s: [u32; 4],
        bits: u32,
    },
    Logic3 {
        d: u32,
        s: [u32; 3],
        table: u8,
    },
    Compare(Box<Compare>),
    Select {
        d: u32,
        a: u32,
        b: u32,
        p: Pred,
    },
    /// `slct`: by the sign of `c`.
    SelectSign {
        d: u32,
        a: u32,
        b: u32,
        c: u32,
        float: bool,
    },
    Preds {
        function: fn(u32, u32) -> u32,
        d: u32,
        a: Pred,
        b: Pred,
    },
    Pack {
        d: u32,
        parts: Vec<u32>,
        width: u32,
    },
    Unpack {
        parts: Vec<u32>,
        a: u32,
        width: u32,
    },
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<Atomic>),
    Branch {
        target: u32,
        join: u32,
    },
    BranchTable {
        index: u32,
        targets: Vec<u32>,
        join: u32,
    },
    Exit,
    Trap,
    Nop,
    /// `griddepcontrol.wait`.
    Predecessors,
    Pause,
    /// The address is looked at, nothing more.
    Hint {
        space: Space,
        address: Address,
    },
    Barrier(Box<Barrier>),
    WarpBarrier {
        mask: u32,
    },
    Fence,
    Shuffle {
        how: Shuffle,
        d: u32,
        p: u32,
        a: u32,
        b: u32,
        c: u32,
        mask: u32,
    },
    Vote {
        how: Vote,
        d: u32,
        p: u32,
        a: Pred,
        mask: u32,
    },
    Match {
        all: bool,
        d: u32,
        p: u32,
        a: u32,
        mask: u32,
    },
    Reduce {
        how: Reduce,
        signed: bool,
        d: u32,
        a: u32,
        mask: u32,
    },
    Elect {
        d: u32,
        p: u32,
        mask: u32,
    },
    ActiveMask {
        d: u32,
    },
    Copy(Box<Copy>),
    CopyCommit,
    CopyWait {
        pending: u32,
    },
    Matrices(Box<Matrices>),
    MoveMatrix {
        d: u32,
        a: u32,
    },
    Mma(Box<Mma>),
    Hopper(Box<Hopper>),
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub op: Op,
    pub guard: Option<Pred>,
    pub line: u32,
}

/// Special registers that differ between lanes, warps, blocks or launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    MaskEq,
    MaskLt,
    MaskLe,
    MaskGt,
    MaskGe,
    ClusterRank,
    ClusterSize,
    ClusterBlock(u8),
    ClusterDim(u8),
    ClusterId(u8),
    Clusters(u8),
    DynamicShared,
    TotalShared,
    Clock,
}

/// A kernel ready to run.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub name: String,
    pub code: Vec<Instruction>,
    pub words: u32,
    pub preds: u32,
    pub constants: Vec<(u32, u64)>,
    pub specials: Vec<(u32, Special)>,
    /// Predicates that are always true and always false.
    pub truth: [u32; 2],
    /// Offset and size of each parameter.
    pub params: Vec<(u64, u64)>,
    pub param_bytes: u64,
    /// Bytes at `TABLE_WINDOW`.
    pub tables: Arc<Vec<u8>>,
    pub static_shared: u64,
    /// Alignment of the dynamic part, which begins after the static one.
    pub dynamic_offset: u64,
    pub local_bytes: u64,
    pub max_threads: Option<u64>,
    pub exact_threads: Option<[u32; 3]>,
    /// Of a thread, when the kernel begins.
    pub registers: Option<u32>,
    pub cluster: Option<[u32; 3]>,
    /// It waits for, or counts with, other blocks.
    pub talks: bool,
}

impl Kernel {
    /// Does it multiply matrices?
    pub fn multiplies(&self) -> bool {
        self.code.iter().any(|instruction| match &instruction.op {
            Op::Mma(_) => true,
            Op::Hopper(op) => matches!(**op, Hopper::Wgmma(_)),
            _ => false,
        })
    }
}
