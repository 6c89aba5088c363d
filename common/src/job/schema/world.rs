//! `[world]`: the number of processes that host the ranks.

use serde::{Deserialize, Serialize};

use crate::job::error::JobError;

/// Number of operating-system processes that host the ranks. With `numerics.reduction = "tree"` it does not change the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The most processes to use, from 1 to `ranks`; one for each rank if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// The fewest processes to start with, or to continue with after a failure; 1 if absent.
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
