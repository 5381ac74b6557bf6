//! Streams, marks in them, and graphs of what a stream recorded.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use super::driver;
use crate::answer::{INVALID_HANDLE, INVALID_VALUE, STREAM_CAPTURE_UNSUPPORTED};
use crate::faults::Call;
use crate::pointer::Out;
use crate::state::{pointer, state};

driver! {
    fn cuStreamCreate(stream: Out<*mut c_void>, _flags: u32) {
        let mut state = state();
        state.alive()?;
        stream.set(pointer(state.handle()));
        Ok(())
    }

    fn cuStreamDestroy_v2(_stream: *mut c_void) {
        Ok(())
    }

    fn cuStreamSynchronize(_stream: *mut c_void) {
        let mut state = state();
        if state.recording.is_some() {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        state.wait()
    }

    fn cuStreamBeginCapture_v2(_stream: *mut c_void, _mode: u32) {
        let mut state = state();
        state.begin(Call::Graph)?;
        if state.recording.is_some() {
            return Err(INVALID_VALUE);
        }
        state.recording = Some(Vec::new());
        Ok(())
    }

    fn cuStreamEndCapture(_stream: *mut c_void, graph: Out<*mut c_void>) {
        let mut state = state();
        let recorded = state.recording.take().ok_or(INVALID_VALUE)?;
        let handle = state.handle();
        state.graphs.insert(handle, Arc::new(recorded));
        graph.set(pointer(handle));
        Ok(())
    }

    fn cuGraphInstantiateWithFlags(ready: Out<*mut c_void>, graph: *mut c_void, _flags: u64) {
        let mut state = state();
        state.alive()?;
        let work = Arc::clone(state.graphs.get(&graph.addr()).ok_or(INVALID_HANDLE)?);
        let handle = state.handle();
        state.graphs.insert(handle, work);
        ready.set(pointer(handle));
        Ok(())
    }

    fn cuGraphLaunch(graph: *mut c_void, _stream: *mut c_void) {
        let mut state = state();
        state.alive()?;
        let work = Arc::clone(state.graphs.get(&graph.addr()).ok_or(INVALID_HANDLE)?);
        // A graph starts when all before it has ended.
        state.gpu.settle();
        work.iter().try_for_each(|work| state.carry_out(work))
    }

    fn cuGraphDestroy(graph: *mut c_void) {
        let removed = state().graphs.remove(&graph.addr());
        removed.map(|_| ()).ok_or(INVALID_HANDLE)
    }

    fn cuGraphExecDestroy(graph: *mut c_void) {
        let removed = state().graphs.remove(&graph.addr());
        removed.map(|_| ()).ok_or(INVALID_HANDLE)
    }

    fn cuEventCreate(event: Out<*mut c_void>, _flags: u32) {
        let mut state = state();
        state.alive()?;
        let handle = state.handle();
        state.events.insert(handle, None);
        event.set(pointer(handle));
        Ok(())
    }

    fn cuEventDestroy_v2(event: *mut c_void) {
        let removed = state().events.remove(&event.addr());
        removed.map(|_| ()).ok_or(INVALID_HANDLE)
    }

    fn cuEventRecord(event: *mut c_void, _stream: *mut c_void) {
        let mut state = state();
        state.alive()?;
        let time = state.events.get_mut(&event.addr()).ok_or(INVALID_HANDLE)?;
        *time = Some(Instant::now());
        Ok(())
    }

    fn cuEventSynchronize(_event: *mut c_void) {
        state().wait()
    }

    fn cuEventElapsedTime(milliseconds: Out<f32>, start: *mut c_void, end: *mut c_void) {
        let state = state();
        state.alive()?;
        let time = |event: *mut c_void| state.events.get(&event.addr()).copied().flatten();
        let (Some(start), Some(end)) = (time(start), time(end)) else {
            return Err(INVALID_HANDLE);
        };
        milliseconds.set(end.saturating_duration_since(start).as_secs_f32() * 1e3);
        Ok(())
    }
}
