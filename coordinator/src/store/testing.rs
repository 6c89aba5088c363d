//! Helpers for the tests of this module.

use std::path::Path;

use lockstep_core::replica::{LogEntry, Persist, Recovered, Rows};

use super::{DataDir, Store, StoreError};

/// Opens the data directory `dir`, which has the current format or is new.
pub(crate) fn opened(dir: &Path) -> Result<(Store, Recovered), StoreError> {
    Store::open(DataDir::take(dir)?, &mut |_| unreachable!("the directory has the current format"))
}

/// A log entry with an empty command.
pub(super) fn entry(index: u64, term: u64) -> LogEntry {
    LogEntry { index, term, data: Vec::new() }
}

/// A durable write of `entries` alone.
pub(super) fn persist(number: u64, entries: Vec<LogEntry>) -> Persist {
    Persist {
        number,
        sync: true,
        truncated: None,
        entries,
        hard_state: None,
        rows: Rows::Changed(Vec::new()),
        effects: Vec::new(),
        archived: Vec::new(),
        applied_index: 0,
    }
}
