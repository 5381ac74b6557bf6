//! `--trace`: every call of a run, written as it is done.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::error::CommandError;
use super::measure::Probe;
use crate::program::Watcher;
use crate::trace::CallTrace;
use crate::{Program, RunError};

use super::{Failure, boxed};

/// Who writes every call of `program` to `path`: JSON lines; `-` is a table on standard error.
///
/// Measures the machine's limits first.
///
/// Refuses a file that cannot be written.
pub(super) fn writer(
    program: &Program,
    path: &Path,
    threads: Option<usize>,
) -> Result<Watcher, Failure> {
    let table = path.as_os_str() == "-";
    let mut out: Box<dyn Write + Send> = if table {
        Box::new(io::stderr())
    } else {
        let file =
            File::create(path).map_err(|error| boxed(CommandError::io("write", path, &error)))?;
        Box::new(BufWriter::new(file))
    };
    let probe = Probe::new(program, threads);
    let limits = probe.and_then(|probe| probe.measure());
    let limits = limits.map_err(|error| boxed(RunError::Device(error)))?;
    Ok(Box::new(move |plan, done| {
        let trace = CallTrace::new(plan, done, &limits);
        // A trace that cannot be written is no reason to give up the answer.
        let _ = if table {
            out.write_all(trace.table().as_bytes())
        } else {
            serde_json::to_writer(&mut out, &trace)
                .map_err(io::Error::from)
                .and_then(|()| out.write_all(b"\n"))
                .and_then(|()| out.flush())
        };
    }))
}
