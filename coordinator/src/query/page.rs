//! Pages of the list of all runs: their work is bounded, however many runs there are.
//!
//! The order is that of submission, and a run's number says its place: it never changes, and no run is ever taken away. So what one page
//! leaves for the next stays the same while runs are submitted, end and go to the archive.

use lockstep_core::ClusterState;
use lockstep_core::state::Found;
use serde::{Deserialize, Serialize};

/// Runs of a page at most: some 300 kB, and milliseconds of work.
pub const MOST_ROWS: usize = 500;

/// Some runs, oldest first, and where to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Oldest first; on the first page also all runs that go on.
    pub runs: Vec<T>,
    /// The number that the next page asks for runs before.
    pub before: u64,
    /// How many runs have a smaller number: none, and this is the last page.
    pub older: u64,
}

impl<T> Page<T> {
    /// What `of` says of the last `limit` runs before number `before`.
    pub(super) fn of(state: &ClusterState, before: Option<u64>, limit: usize, of: impl Fn(Found<'_>) -> T) -> Self {
        let found = state.listed(before.unwrap_or(u64::MAX), limit);
        let first = found.first().map_or(0, |(number, _)| *number);
        let runs = found.iter().filter_map(|(_, id)| state.found(id)).map(of).collect();
        Self { runs, before: first, older: state.older_than(first) as u64 }
    }

    /// The same page with what `of` makes of each run.
    pub(super) fn try_map<U, E>(self, of: impl FnMut(T) -> Result<U, E>) -> Result<Page<U>, E> {
        let Self { runs, before, older } = self;
        Ok(Page { runs: runs.into_iter().map(of).collect::<Result<_, _>>()?, before, older })
    }
}
