//! A bar on a terminal, nothing in a log: for work that may take longer than a second.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of bytes on standard error; hidden when that is no terminal.
pub fn bytes(what: &str) -> ProgressBar {
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
