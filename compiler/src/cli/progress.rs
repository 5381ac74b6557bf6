//! A bar on a terminal, nothing in a log: for work that may take longer than a second.
//!
//! Such work can also be interrupted: the one who is told of the progress says whether to go on.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sail_runtime::device::signal;

/// A bar of bytes on standard error; hidden when that is no terminal.
fn bytes(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{msg:>10} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    bar.set_draw_target(target);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar of steps on standard error, what is done in words; hidden when that is no terminal.
pub fn steps() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} [{bar:32}] {elapsed} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Do `work` that writes a file: it shows its progress, and a signal (Ctrl-C) ends it from inside,
/// so that it takes away what it has begun.
pub fn writing<R, E>(
    what: &str,
    work: impl FnOnce(&mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<R, E>,
) -> Result<R, E> {
    signal::listen();
    let bar = bytes(what);
    let result = work(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        match signal::stop_wish().load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    result
}
