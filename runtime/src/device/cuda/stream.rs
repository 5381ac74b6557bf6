//! The one order of work on the GPU: a stream, marks in it, and work that was recorded once.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::driver::{Context, check, refused};
use super::error::CudaError;

/// Work in the order it was asked for.
pub(super) struct Stream {
    context: Arc<Context>,
    handle: sys::CUstream,
}

// SAFETY: a stream may be used by any thread that made its context current; calls are thread-safe.
unsafe impl Send for Stream {}

impl Stream {
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        let mut handle = ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: writes one handle; the context is current.
        check("begin a stream", unsafe { sys::cuStreamCreate(&raw mut handle, flags) })?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub fn raw(&self) -> sys::CUstream {
        self.handle
    }

    /// Wait for all that was asked for; the first thing that went wrong with it, `doing` that.
    pub fn wait(&self, doing: &str) -> Result<(), CudaError> {
        // SAFETY: the handle lives until the drop.
        check(doing, unsafe { sys::cuStreamSynchronize(self.handle) })
    }

    /// Record what `work` asks for instead of doing it.
    ///
    /// `work` must ask for nothing but kernels and copies of this stream.
    pub fn record(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is idle or has work of ours only; the capture is ended below.
        check("begin a graph", unsafe { sys::cuStreamBeginCapture_v2(self.handle, mode) })?;
        let worked = work();
        let mut graph: sys::CUgraph = ptr::null_mut();
        // SAFETY: ends what was begun above; writes one handle, or null.
        let ended = unsafe { sys::cuStreamEndCapture(self.handle, &raw mut graph) };
        let mut exec: sys::CUgraphExec = ptr::null_mut();
        let made = worked.and_then(|()| check("end a graph", ended)).and_then(|()| {
            // SAFETY: the graph was made above; writes one handle.
            let answer = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0) };
            check("make a graph ready", answer)
        });
        if !graph.is_null() {
            // SAFETY: made above and used no more: what is ready keeps what it needs.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
        made.map(|()| Graph { context: Arc::clone(&self.context), exec })
    }

    /// Do recorded work again.
    pub fn replay(&self, graph: &Graph) -> Result<(), CudaError> {
        // SAFETY: both handles live; what the graph's kernels touch belongs to the same device,
        // which outlives its graphs.
        check("launch a graph", unsafe { sys::cuGraphLaunch(graph.exec, self.handle) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: made once. Waiting first, so that nothing runs in memory that is given back.
            unsafe {
                let _ = sys::cuStreamSynchronize(self.handle);
                let _ = sys::cuStreamDestroy_v2(self.handle);
            }
        }
    }
}

/// Recorded work, ready to be done again.
pub(super) struct Graph {
    context: Arc<Context>,
    exec: sys::CUgraphExec,
}

// SAFETY: as for the stream.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: made once; its owner waited for the stream.
            let _ = unsafe { sys::cuGraphExecDestroy(self.exec) };
        }
    }
}

/// A mark in the stream.
pub(super) struct Event {
    context: Arc<Context>,
    handle: sys::CUevent,
}

// SAFETY: as for the stream.
unsafe impl Send for Event {}

impl Event {
    /// A mark whose time can be asked for when `timed`.
    pub fn new(context: &Arc<Context>, timed: bool) -> Result<Self, CudaError> {
        let flags = match timed {
            true => sys::CUevent_flags::CU_EVENT_DEFAULT,
            false => sys::CUevent_flags::CU_EVENT_DISABLE_TIMING,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: writes one handle; the context is current.
        check("make a mark", unsafe { sys::cuEventCreate(&raw mut handle, flags as u32) })?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    /// Put it behind all that `stream` was asked for so far.
    pub fn mark(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both handles live.
        check("set a mark", unsafe { sys::cuEventRecord(self.handle, stream.raw()) })
    }

    /// Wait until the work before it is done; at once when it was never put anywhere.
    pub fn wait(&self, doing: &str) -> Result<(), CudaError> {
        // SAFETY: the handle lives.
        check(doing, unsafe { sys::cuEventSynchronize(self.handle) })
    }

    /// Nanoseconds from `earlier` to this; both were passed.
    pub fn since(&self, earlier: &Self) -> Result<u64, CudaError> {
        let mut milliseconds = 0.0_f32;
        // SAFETY: both handles live; writes one number.
        let answer =
            unsafe { sys::cuEventElapsedTime(&raw mut milliseconds, earlier.handle, self.handle) };
        match answer {
            CUresult::CUDA_SUCCESS => Ok((f64::from(milliseconds) * 1e6) as u64),
            answer => Err(refused("tell the time", answer)),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: made once.
            let _ = unsafe { sys::cuEventDestroy_v2(self.handle) };
        }
    }
}
