//! Progress bars, which only a terminal shows.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar. It disappears when its last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Bar>);

#[derive(Debug)]
struct Bar(ProgressBar);

impl Progress {
    /// A bar over `total` bytes, with a rate.
    pub(crate) fn bytes(what: &'static str, total: u64) -> Self {
        Self::new(what, total, "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
    }

    /// A bar over `total` files.
    pub(crate) fn files(what: &'static str, total: u64) -> Self {
        Self::new(what, total, "{msg} {bar:30} {pos}/{len} files, {eta} left")
    }

    fn new(what: &'static str, total: u64, template: &str) -> Self {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(Arc::new(Bar(ProgressBar::new(total).with_message(what).with_style(style))))
    }

    /// A bar that is never shown.
    pub(crate) fn none() -> Self {
        Self(Arc::new(Bar(ProgressBar::hidden())))
    }

    pub(crate) fn set(&self, bytes: u64) {
        self.0.0.set_position(bytes);
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.0.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
