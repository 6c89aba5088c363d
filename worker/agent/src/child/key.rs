//! The key of a process: run, generation and process index.

use std::fmt;

use lockstep_common::RunId;
use lockstep_common::id::NotAnId;
use lockstep_rpc::{ProcessMessage, Report};

/// Names one process. Messages and files of different generations have different keys, and never mix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessKey {
    pub(crate) run: RunId,
    pub(crate) generation: u64,
    pub(crate) process: u32,
}

impl ProcessKey {
    pub(crate) fn new(run: &str, generation: u64, process: u32) -> Result<Self, NotAnId> {
        Ok(Self { run: run.parse()?, generation, process })
    }

    /// `message` as the report number `sequence` of this process.
    pub(crate) fn report(&self, sequence: u64, message: ProcessMessage) -> Report {
        let Self { run, generation, process } = self;
        Report { run: run.to_string(), generation: *generation, process: *process, sequence, message: Some(message) }
    }
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of run {} generation {}", self.process, self.run, self.generation)
    }
}
