//! Where a run is written to: one target that fails does not keep the others from being written.

use lockstep_export::{ExportError, Item, Run, Sink};

use crate::terminal::{Exit, Failure, Output};

/// The targets of one command.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// Those that took everything so far.
    sound: Vec<(String, Sink)>,
    /// What failed, with its reason.
    failed: Vec<(String, Failure)>,
    /// How many of those the user was told.
    told: usize,
}

impl Targets {
    /// Adds a target, in the words of the command line.
    pub(super) fn add(&mut self, name: String, sink: Result<Sink, ExportError>) {
        match sink {
            Ok(sink) => self.sound.push((name, sink)),
            Err(error) => self.failed.push((name, failure(&error))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sound.is_empty() && self.failed.is_empty()
    }

    /// Announces `run` to all.
    ///
    /// # Errors
    /// As for all methods here: only if no target is left.
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

    /// Ends all.
    ///
    /// # Errors
    /// If one of them failed, now or before; each is named.
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

    /// Tells at once what failed if the others are written on: that may take days.
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

    /// Of all that failed.
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
