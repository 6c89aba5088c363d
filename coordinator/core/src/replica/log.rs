//! The last entries of the log, in memory, from which raft reads.

use std::cell::Cell;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::config::KEPT_BYTES;
use super::output::LogPosition;

/// The entries of the log after `truncated`.
pub(super) struct LogTail {
    pub(super) voters: Vec<u64>,
    pub(super) hard_state: HardState,
    pub(super) truncated: LogPosition,
    entries: Vec<Entry>,
    bytes: usize,
    /// The last snapshot that was made for a follower; `None` if it is older than the log.
    pub(super) snapshot: Option<Snapshot>,
    /// Set when raft requests a snapshot and `snapshot` is missing or too old.
    pub(super) snapshot_wanted: Cell<bool>,
}

impl LogTail {
    pub(super) fn new(voters: Vec<u64>, hard_state: HardState, truncated: LogPosition, entries: Vec<Entry>) -> Self {
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        Self { voters, hard_state, truncated, entries, bytes, snapshot: None, snapshot_wanted: Cell::new(false) }
    }

    pub(super) fn last_index(&self) -> u64 {
        self.truncated.index + self.entries.len() as u64
    }

    pub(super) fn term_of(&self, index: u64) -> Result<u64, StorageError> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(StorageError::Compacted);
        }
        let at = (index - self.truncated.index - 1) as usize;
        self.entries.get(at).map(|entry| entry.term).ok_or(StorageError::Unavailable)
    }

    /// Appends entries. They replace all entries at and after the index of the first one.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            (self.truncated.index + 1..=self.last_index() + 1).contains(&first.index),
            "raft appends after its applied entries, and without gaps"
        );
        let size = |entries: &[Entry]| entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        let kept = (first.index - self.truncated.index - 1) as usize;
        self.bytes -= size(&self.entries[kept..]);
        self.entries.truncate(kept);
        self.bytes += size(entries);
        self.entries.extend_from_slice(entries);
    }

    /// Removes all entries, because a snapshot of another replica contains everything up to `position`.
    pub(super) fn replace(&mut self, position: LogPosition) {
        self.truncated = position;
        self.entries.clear();
        self.bytes = 0;
        self.snapshot = None;
    }

    /// Removes old applied entries if there are more than twice as many as `kept_entries`, or more than twice [`KEPT_BYTES`]. Returns the
    /// new beginning of the log, if it changed.
    pub(super) fn compact(&mut self, applied: u64, kept_entries: usize) -> Option<LogPosition> {
        if self.entries.len() <= 2 * kept_entries && self.bytes <= 2 * KEPT_BYTES {
            return None;
        }
        let (mut kept, mut bytes) = (0, 0);
        for entry in self.entries.iter().rev() {
            bytes += entry.data.len();
            if kept == kept_entries || bytes > KEPT_BYTES {
                break;
            }
            kept += 1;
        }
        let cut = (self.last_index() - kept as u64).min(applied);
        if cut <= self.truncated.index {
            return None;
        }
        let position = LogPosition { index: cut, term: self.term_of(cut).ok()? };
        let dropped = (cut - self.truncated.index) as usize;
        self.bytes -= self.entries.drain(..dropped).map(|entry| entry.data.len()).sum::<usize>();
        self.truncated = position;
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.get_metadata().index < cut) {
            self.snapshot = None;
        }
        Some(position)
    }
}

impl Storage for LogTail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = ConfState { voters: self.voters.clone(), ..ConfState::default() };
        Ok(RaftState::new(self.hard_state.clone(), conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let (from, to) = ((low - self.truncated.index - 1) as usize, (high - self.truncated.index - 1) as usize);
        let mut entries = self.entries.get(from..to).ok_or(Error::Store(StorageError::Unavailable))?.to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_of(index).map_err(Error::Store)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(Self::last_index(self))
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => Ok(snapshot.clone()),
            _ => {
                self.snapshot_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 10].into(), ..Entry::default() }
    }

    fn tail(last: u64) -> LogTail {
        let entries = (1..=last).map(|index| entry(index, 1)).collect();
        LogTail::new(vec![1], HardState::default(), LogPosition::default(), entries)
    }

    #[test]
    fn entries_that_conflict_are_replaced() {
        let mut log = tail(5);
        log.append(&[entry(3, 2)]);
        assert_eq!((log.last_index(), log.term_of(3), log.bytes), (3, Ok(2), 30));
        assert_eq!(log.term_of(4), Err(StorageError::Unavailable));
    }

    #[test]
    fn only_applied_entries_are_dropped_and_only_when_they_are_many() {
        let mut log = tail(9);
        assert_eq!(log.compact(9, 5), None);
        assert_eq!(log.compact(3, 4), Some(LogPosition { index: 3, term: 1 }), "4 to 9 are not applied");
        assert_eq!((log.last_index(), log.bytes, log.term_of(3)), (9, 60, Ok(1)));
        assert_eq!(log.term_of(2), Err(StorageError::Compacted));
        let read = |low, high, max: Option<u64>| log.entries(low, high, max, GetEntriesContext::empty(false));
        assert_eq!(read(4, 10, None).unwrap().len(), 6);
        assert_eq!(read(4, 10, Some(0)).unwrap().len(), 1, "always at least one");
        assert!(matches!(read(3, 10, None), Err(Error::Store(StorageError::Compacted))));
        assert!(matches!(read(4, 11, None), Err(Error::Store(StorageError::Unavailable))));
    }
}
