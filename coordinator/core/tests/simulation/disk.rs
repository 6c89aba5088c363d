//! The disk of a replica: transactions are written in order, and a crash may lose those that were not synced.

use std::collections::BTreeMap;

use lockstep_core::ClusterState;
use lockstep_core::replica::{HardState, LogEntry, LogPosition, Persist, Recovered, Rows};

use super::random::Random;

#[derive(Clone, Default)]
struct Contents {
    truncated: LogPosition,
    entries: Vec<LogEntry>,
    hard_state: HardState,
    rows: BTreeMap<String, Vec<u8>>,
    applied_index: u64,
}

#[derive(Default)]
pub(crate) struct Disk {
    durable: Contents,
    /// Transactions that were written and not synced, oldest first.
    cached: Vec<Persist>,
}

impl Disk {
    pub(crate) fn write(&mut self, persist: Persist) {
        let sync = persist.sync;
        self.cached.push(persist);
        if sync {
            for persist in self.cached.drain(..) {
                self.durable.write(persist);
            }
        }
    }

    /// Simulates a power failure: a random number of the first unsynced transactions stays, the others are lost.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let kept = random.below(self.cached.len() as u64 + 1) as usize;
        for persist in self.cached.drain(..).take(kept) {
            self.durable.write(persist);
        }
    }

    pub(crate) fn recover(&self) -> Recovered {
        let Contents { truncated, entries, hard_state, rows, applied_index } = self.durable.clone();
        let state = ClusterState::from_rows(rows).unwrap();
        Recovered { truncated, entries, hard_state, applied_index, state }
    }
}

impl Contents {
    fn write(&mut self, persist: Persist) {
        match persist.rows {
            Rows::Replaced(rows) => {
                self.rows = rows.into_iter().collect();
                self.entries.clear();
            }
            Rows::Changed(rows) => {
                for (key, value) in rows {
                    match value {
                        Some(value) => self.rows.insert(key, value),
                        None => self.rows.remove(&key),
                    };
                }
            }
        }
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend(persist.entries);
        if let Some(truncated) = persist.truncated {
            self.truncated = truncated;
            self.entries.retain(|entry| entry.index > truncated.index);
        }
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        self.applied_index = persist.applied_index;
    }
}
