//! `[world]`: how many processes carry the ranks.

use serde::{Deserialize, Serialize};

use crate::job::error::JobError;

/// How many operating-system processes carry the ranks. Never changes the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Processes to use at most; default: one for each rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Processes that suffice to start or to go on after a failure; default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_processes: Option<u32>,
}

impl World {
    pub(super) fn check(&self, ranks: u32) -> Result<(), JobError> {
        let processes = self.processes.unwrap_or(ranks);
        if !(1..=ranks).contains(&processes) {
            let detail = format!("{processes} is not from 1 to `ranks` = {ranks}");
            return Err(JobError::value("world.processes", detail));
        }
        if let Some(min) = self.min_processes.filter(|min| !(1..=processes).contains(min)) {
            let detail = format!("{min} is not from 1 to `world.processes` = {processes}");
            return Err(JobError::value("world.min_processes", detail));
        }
        Ok(())
    }
}
