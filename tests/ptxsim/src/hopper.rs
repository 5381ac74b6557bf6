//! Instructions of `sm_90`, decoded: barriers in shared memory, bulk copies, `wgmma`, clusters.

use crate::code::{Address, Element, Pred};

#[derive(Clone, Debug)]
pub(crate) enum Hopper {
    Init {
        place: Address,
        count: u32,
    },
    Invalidate {
        place: Address,
    },
    Arrive(Arrive),
    /// `test_wait` or `try_wait`, for a parity or for a token of `arrive`.
    Wait {
        place: Address,
        p: u32,
        phase: u32,
        parity: bool,
    },
    FenceInit,
    FenceProxy,
    Bulk(Bulk),
    BulkCommit,
    BulkWait {
        pending: u32,
    },
    Wgmma(Wgmma),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        pending: u32,
    },
    Registers {
        count: u32,
        takes: bool,
    },
    Map {
        d: u32,
        a: u32,
        rank: u32,
        generic: bool,
    },
    ClusterArrive {
        releases: bool,
    },
    ClusterWait,
}

/// An arrival, bytes to expect, or both.
#[derive(Clone, Debug)]
pub(crate) struct Arrive {
    pub place: Address,
    /// Token of the phase; `NONE` for `_`.
    pub token: u32,
    /// Slot of the arrivals; `NONE` for 1.
    pub count: u32,
    /// Slot of the bytes to expect (or that came, for `complete_tx`); `NONE` for none.
    pub bytes: u32,
    pub arrives: bool,
    pub completes: bool,
}

/// A place of a bulk copy outside of the shared memory it goes to or comes from.
#[derive(Clone, Debug)]
pub(crate) enum Far {
    /// Address and slot of the byte count.
    Run(Address, u32),
    /// Address of a tensor map, coordinates from the innermost on.
    Box(Address, Vec<u32>),
}

#[derive(Clone, Debug)]
pub(crate) enum Bulk {
    In {
        to: Address,
        from: Far,
        barrier: Address,
        blocks: u32,
    },
    Out {
        to: Far,
        from: Address,
    },
    /// From one block's shared memory to another's.
    Across {
        to: Address,
        from: Address,
        bytes: u32,
        barrier: Address,
    },
    Prefetch(Far),
}

/// Left operand of a product.
#[derive(Clone, Debug)]
pub(crate) enum Left {
    Descriptor(u32),
    Registers(Vec<u32>),
}

#[derive(Clone, Debug)]
pub(crate) struct Wgmma {
    pub n: u32,
    pub left_element: Element,
    pub right_element: Element,
    pub d: Vec<u32>,
    pub left: Left,
    pub right: u32,
    /// Add to what stands in `d`.
    pub keep: Pred,
    pub negate: [bool; 2],
    pub turned: [bool; 2],
}
