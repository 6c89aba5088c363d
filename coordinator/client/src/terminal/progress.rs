//! A bar on a terminal, for what may take long; elsewhere nothing.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

/// How far something has come. The bar goes with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Bar>);

#[derive(Debug)]
struct Bar(ProgressBar);

impl Progress {
    /// Of so many bytes.
    pub(crate) fn bytes(what: &'static str, total: u64) -> Self {
        Self::new(what, total, "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
    }

    /// Of so many files.
    pub(crate) fn files(what: &'static str, total: u64) -> Self {
        Self::new(what, total, "{msg} {bar:30} {pos}/{len} files, {eta} left")
    }

    fn new(what: &'static str, total: u64, template: &str) -> Self {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(Arc::new(Bar(ProgressBar::new(total).with_message(what).with_style(style))))
    }

    /// Shown nowhere.
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
