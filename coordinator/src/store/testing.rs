//! Writes for the tests of this module.

use lockstep_core::replica::{LogEntry, Persist, Rows};

/// An entry with an empty command.
pub(super) fn entry(index: u64, term: u64) -> LogEntry {
    LogEntry { index, term, data: Vec::new() }
}

/// A durable write of `entries` and nothing else.
pub(super) fn persist(number: u64, entries: Vec<LogEntry>) -> Persist {
    Persist {
        number,
        sync: true,
        truncated: None,
        entries,
        hard_state: None,
        rows: Rows::Changed(Vec::new()),
        effects: Vec::new(),
        applied_index: 0,
    }
}
