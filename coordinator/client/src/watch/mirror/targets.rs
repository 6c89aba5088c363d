//! The targets of a mirror. If one fails, the others are still written.

use lockstep_export::{ExportError, Item, Run, Sink};

use crate::terminal::{Exit, Failure, Output};

/// The targets of one command.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// Targets without an error so far, by their option.
    sound: Vec<(String, Sink)>,
    /// Targets that failed, with the reason.
    failed: Vec<(String, Failure)>,
    /// Number of failed targets that the user has seen.
    told: usize,
}

impl Targets {
    /// Adds a target. Its name is the option of the command line.
    pub(super) fn add(&mut self, name: String, sink: Result<Sink, ExportError>) {
        match sink {
            Ok(sink) => self.sound.push((name, sink)),
            Err(error) => self.failed.push((name, failure(&error))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sound.is_empty() && self.failed.is_empty()
    }

    /// Begins `run` in all targets.
    ///
    /// # Errors
    /// If no target is left, as [`Self::write`].
    pub(super) async fn begin(&mut self, run: &Run) -> Result<(), Failure> {
        for (name, mut sink) in std::mem::take(&mut self.sound) {
            let done = sink.begin(run).await;
            self.keep(name, sink, done);
        }
        self.some_left()
    }

    pub(super) async fn write(&mut self, items: &[Item<'_>]) -> Result<(), Failure> {
        for (name, mut sink) in std::mem::take(&mut self.sound) {
            let done = sink.write(items).await;
            self.keep(name, sink, done);
        }
        self.some_left()
    }

    /// Ends `run` in all targets.
    ///
    /// # Errors
    /// If a target has failed, now or before. The error names each.
    pub(super) async fn finish(&mut self, run: &Run) -> Result<(), Failure> {
        for (name, mut sink) in std::mem::take(&mut self.sound) {
            let done = sink.finish(run).await;
            self.keep(name, sink, done);
        }
        if self.failed.is_empty() { Ok(()) } else { Err(self.failure()) }
    }

    fn keep(&mut self, name: String, sink: Sink, done: Result<(), ExportError>) {
        match done {
            Ok(()) => self.sound.push((name, sink)),
            Err(error) => self.failed.push((name, failure(&error))),
        }
    }

    /// Prints failures at once while other targets are still written, which may take days. An error if none is left.
    fn some_left(&mut self) -> Result<(), Failure> {
        if self.sound.is_empty() {
            return Err(self.failure());
        }
        for (name, failure) in &self.failed[self.told..] {
            Output::note(&format!("warning: `{name}` is no longer written: {}", failure.message()));
        }
        self.told = self.failed.len();
        Ok(())
    }

    /// The failure of all targets that failed.
    fn failure(&self) -> Failure {
        let failed: Vec<String> =
            self.failed.iter().map(|(name, failure)| format!("`{name}`: {}", failure.message())).collect();
        let rest = match self.sound.as_slice() {
            [] => String::new(),
            sound => {
                let names: Vec<String> = sound.iter().map(|(name, _)| format!("`{name}`")).collect();
                format!("\n  written: {}", names.join(", "))
            }
        };
        Failure::new(Exit::Local, format!("the run is not written to {}{rest}", failed.join("\n  nor to ")))
    }
}

fn failure(error: &ExportError) -> Failure {
    Failure::caused(Exit::Local, error)
}
