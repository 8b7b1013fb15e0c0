//! A line on the terminal that says how far a long command is.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Entries and bytes so far, with their rate and, where the end is known, the time that is left; drawn on a terminal only.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    entries: AtomicU64,
}

impl Progress {
    /// Starts at nothing, of `bytes` bytes where that is known; `verb` says what is being done ("loading").
    pub fn start(output: &Output, verb: &'static str, bytes: Option<u64>) -> Self {
        let bar = output.progress.then(|| {
            let (bar, template) = match bytes {
                Some(bytes) => (
                    ProgressBar::new(bytes),
                    "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}",
                ),
                None if verb == "checking" => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
                None => (
                    ProgressBar::new_spinner(),
                    "{spinner} {prefix} {binary_bytes} {binary_bytes_per_sec} {msg} {elapsed}",
                ),
            };
            // The templates are constants; a wrong one would show as the default style.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(verb);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, entries: AtomicU64::new(0) }
    }

    /// Says how far it is in other words than entries and bytes.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text());
        }
    }

    /// So many bytes more.
    pub fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// One more entry, of `bytes` bytes.
    pub fn entry(&self, bytes: u64) {
        let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            // Making the text costs more than counting.
            if entries.is_multiple_of(1024) {
                bar.set_message(format!("{entries} entries"));
            }
        }
    }

    /// So many bytes more of an entry that is not done.
    pub fn bytes(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Lets `tell` write to standard error, with the line out of the way.
    pub fn aside(&self, tell: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(tell),
            None => tell(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
