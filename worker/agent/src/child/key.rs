//! Which process something is of.

use std::fmt;

use lockstep_common::RunId;
use lockstep_common::id::NotAnId;
use lockstep_rpc::{ProcessMessage, Report};

/// Which process: messages and files of different generations never mix.
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

    /// `message` of this process, as its report of this number.
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
