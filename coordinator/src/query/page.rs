//! Pages of the list of all runs. The work of a page is bounded, however many runs there are.
//!
//! The order is that of submission. A run's number is its position, which never changes, and no run is ever removed. So consecutive pages
//! contain each run once, even while runs are submitted, end and are archived.

use lockstep_core::ClusterState;
use lockstep_core::state::Found;
use serde::{Deserialize, Serialize};

/// Maximum number of runs on a page: about 300 kB of JSON.
pub const MOST_ROWS: usize = 500;

/// One page of runs, and the position of the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Oldest first. The first page also contains all active runs.
    pub runs: Vec<T>,
    /// The next page contains runs with numbers below this one.
    pub before: u64,
    /// Number of runs with a smaller number; 0 on the last page.
    pub older: u64,
}

impl<T> Page<T> {
    /// The results of `of` for the last `limit` runs with a number below `before`.
    pub(super) fn of(state: &ClusterState, before: Option<u64>, limit: usize, of: impl Fn(Found<'_>) -> T) -> Self {
        let found = state.listed(before.unwrap_or(u64::MAX), limit);
        let first = found.first().map_or(0, |(number, _)| *number);
        let runs = found.iter().filter_map(|(_, id)| state.found(id)).map(of).collect();
        Self { runs, before: first, older: state.older_than(first) as u64 }
    }

    /// Applies `of` to each run.
    pub(super) fn try_map<U, E>(self, of: impl FnMut(T) -> Result<U, E>) -> Result<Page<U>, E> {
        let Self { runs, before, older } = self;
        Ok(Page { runs: runs.into_iter().map(of).collect::<Result<_, _>>()?, before, older })
    }
}
