//! The set of runs with new report blocks, for the one thread that ingests them. A run is in it at most once.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_common::RunId;

/// Runs with new report blocks or rewinds. Clones share one set.
#[derive(Clone, Debug, Default)]
pub struct News(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    runs: BTreeSet<RunId>,
    closed: bool,
}

impl News {
    pub(super) fn add<'a>(&self, runs: impl Iterator<Item = &'a RunId>) {
        let mut runs = runs.peekable();
        if runs.peek().is_some() {
            self.lock().runs.extend(runs.cloned());
            self.0.changed.notify_all();
        }
    }

    /// Ends the waiting of [`News::take`]; no run is added afterwards.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// Takes the runs with news; waits for the first up to `patience`, and then returns an empty set. `None` once the set is closed and
    /// empty.
    pub fn take(&self, patience: Duration) -> Option<BTreeSet<RunId>> {
        let idle = |pending: &mut Pending| pending.runs.is_empty() && !pending.closed;
        let waited = self.0.changed.wait_timeout_while(self.lock(), patience, idle);
        let (mut pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if pending.runs.is_empty() && pending.closed { None } else { Some(std::mem::take(&mut pending.runs)) }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
