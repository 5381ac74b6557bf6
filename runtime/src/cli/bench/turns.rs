//! Decoding in turns with other programs: work at each line that comes in.

use std::io;
use std::path::Path;
use std::time::Instant;

use sail_ir::output;

use super::runs::{self, Sizes};
use crate::Program;
use crate::cli::error::CommandError;
use crate::cli::{Failure, boxed};
use crate::device::signal;

/// Read the prompts once; then, for each line of standard input, write the tokens after them and print
/// the seconds that took. Ends with the input.
///
/// Two programs that take short turns see the same state of the machine, which moves within seconds:
/// the ratio of their times is steadier than either.
///
/// Refuses a context without room for the tokens. Ctrl-C ends the program: nothing is lost.
pub fn take(program: &Program, sizes: &Sizes) -> Result<(), Failure> {
    runs::has_room_for_text(program, sizes)?;
    let Sizes { prefill, decode, batch, .. } = *sizes;
    let positions = prefill..prefill + decode;
    for slot in 0..batch {
        runs::read_into(&mut program.engine(), slot, prefill, &mut |_| {}).map_err(boxed)?;
    }
    signal::forget();
    for line in io::stdin().lines() {
        line.map_err(|error| boxed(CommandError::io("read", Path::new("standard input"), &error)))?;
        let start = Instant::now();
        let mut engine = program.engine();
        runs::write(&mut engine, positions.clone(), batch, &mut |_| {}).map_err(boxed)?;
        output::put(&format!("{:.6}\n", start.elapsed().as_secs_f64())).map_err(boxed)?;
    }
    Ok(())
}
