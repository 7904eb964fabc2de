//! How far something that takes a while has come: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// On the standard error, so that the standard output stays what was asked for.
pub(super) struct Progress {
    bar: ProgressBar,
    /// When the last line was written; none where there is a bar.
    line: Option<Instant>,
    what: &'static str,
}

impl Progress {
    /// Of `total` of something, where that is known; `bytes`: it is bytes.
    pub(super) fn new(what: &'static str, total: Option<u64>, bytes: bool) -> Self {
        let template = match (total, bytes) {
            (Some(_), true) => "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {elapsed} {msg}",
            (None, true) => "{spinner} {bytes} {binary_bytes_per_sec} {elapsed} {msg}",
            (Some(_), false) => "{bar:30} {pos}/{len} {elapsed} {msg}",
            (None, false) => "{spinner} {pos} {elapsed} {msg}",
        };
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let line = (!io::stderr().is_terminal()).then(Instant::now);
        Self { bar: bar.with_style(style), line, what }
    }

    /// Sets how much there is, once that is known.
    pub(super) fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// So much is done, and `beside` is to be said.
    pub(super) fn at(&mut self, done: u64, beside: impl FnOnce() -> String) {
        match &mut self.line {
            None => {
                self.bar.set_position(done);
                self.bar.set_message(beside());
            }
            Some(last) if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                eprintln!("{}: {done}, {}", self.what, beside());
            }
            Some(_) => {}
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
