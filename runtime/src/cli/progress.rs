//! A bar on a terminal for what takes longer than a second, nothing in a log.

use std::io::IsTerminal;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{Event, Program};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a person sees while waiting; at most one bar at a time.
pub(super) struct Progress {
    terminal: bool,
    since: Instant,
    bar: Option<ProgressBar>,
    what: &'static str,
}

impl Progress {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, since: Instant::now(), bar: None, what: "" }
    }

    /// Show how far a question has come; the bar goes away when text begins.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Vision { done, total } => self.show("pictures", *done, *total),
            Event::Prefill { done, total } => self.show("prompt", *done, *total),
            Event::Text(_) => self.clear(),
        }
    }

    /// Show `done` of `total` of something.
    pub fn show(&mut self, what: &'static str, done: u32, total: u32) {
        if what != self.what {
            self.clear();
            self.what = what;
            self.since = Instant::now();
        }
        if !self.terminal || self.since.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| bar(what, u64::from(total)));
        bar.set_position(u64::from(done));
    }

    pub fn clear(&mut self) {
        self.what = "";
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Wait until the weights are hashed.
    pub fn verify(&mut self, program: &Program) -> Result<(), crate::RunError> {
        while !program.verified()? {
            let (done, total) = program.verify_progress();
            let megabytes = |bytes: u64| u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
            self.show("weights", megabytes(done), megabytes(total));
            thread::sleep(Duration::from_millis(10));
        }
        self.clear();
        Ok(())
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template("{msg:>10} [{bar:32}] {pos}/{len} {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar
}
