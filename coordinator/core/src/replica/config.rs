//! What a replica begins with: its configuration, and what its disk holds.

use super::message;
use super::output::{HardState, LogEntry, LogPosition};
use crate::state::ClusterState;

/// Bytes of entries in one message, if there is more than one entry.
pub(super) const MESSAGE_BYTES: u64 = 1 << 20;

/// Messages with entries under way to one follower.
pub(super) const MESSAGES_IN_FLIGHT: usize = 64;

/// Bytes of proposals that are not committed yet; beyond, proposals are refused as `Busy`.
pub(super) const UNCOMMITTED_BYTES: u64 = 64 << 20;

/// Bytes of entries that one turn applies at most.
pub(super) const APPLY_BYTES: u64 = 16 << 20;

/// Bytes of applied entries that stay in memory and on disk for followers that lag.
pub(super) const KEPT_BYTES: usize = 64 << 20;

/// A replica's configuration. Times are in ticks, whose length the caller chooses.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica: at least 1.
    pub id: u64,
    /// All replicas, this one too. The same in all of them, and fixed for the life of the cluster.
    pub voters: Vec<u64>,
    /// Silence of the leader after which the first voter stands for election; the others wait somewhat longer, each
    /// its own time, so that they do not collide and nothing is drawn at random.
    pub election_ticks: usize,
    /// Between heartbeats; several times less than `election_ticks`.
    pub heartbeat_ticks: usize,
    /// Applied entries that stay in memory and on disk for followers that lag; others get a snapshot.
    pub kept_entries: usize,
}

/// What a store holds: everything that was in a `Persist`, put together.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The log begins behind this entry.
    pub truncated: LogPosition,
    /// The log.
    pub entries: Vec<LogEntry>,
    /// The promises.
    pub hard_state: HardState,
    /// The last entry that `state` knows of.
    pub applied_index: u64,
    /// The state, from its rows.
    pub state: ClusterState,
}

/// A configuration, or recovered data, that no replica can go on with.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Contradicts itself.
    #[error("the configuration of the replica is not sound: {0}")]
    Config(String),
    /// Parts of the log are missing, or are not of this log.
    #[error("the log is damaged: {0}")]
    Log(String),
}

impl Config {
    pub(super) fn check(&self) -> Result<(), RecoverError> {
        let refuse = |what: String| Err(RecoverError::Config(what));
        if self.id == 0 || self.voters.contains(&0) {
            return refuse("ids begin at 1".into());
        }
        if !self.voters.contains(&self.id) {
            return refuse(format!("replica {} is not among the voters {:?}", self.id, self.voters));
        }
        if !self.voters.is_sorted_by(|a, b| a < b) {
            return refuse(format!("the voters {:?} are not in order, or one stands twice", self.voters));
        }
        if self.heartbeat_ticks == 0 || self.election_ticks <= 2 * self.heartbeat_ticks {
            let (election, heartbeat) = (self.election_ticks, self.heartbeat_ticks);
            return refuse(format!("{election} ticks to an election are too few for {heartbeat} between heartbeats"));
        }
        Ok(())
    }

    /// This voter's own time to an election.
    pub(super) fn own_election_ticks(&self) -> usize {
        let position = self.voters.iter().position(|&voter| voter == self.id).unwrap_or(0);
        self.election_ticks + position * (self.election_ticks / self.voters.len()).max(1)
    }
}

impl Recovered {
    pub(super) fn check(&self) -> Result<(), RecoverError> {
        let damaged = |what: String| Err(RecoverError::Log(what));
        let mut before = self.truncated;
        for entry in &self.entries {
            if entry.index != before.index + 1 || entry.term < before.term {
                return damaged(format!(
                    "entry {} of term {} follows entry {} of term {}",
                    entry.index, entry.term, before.index, before.term
                ));
            }
            if let Err(error) = message::decode_command(&entry.data) {
                return damaged(format!("entry {}: {error}", entry.index));
            }
            before = LogPosition { index: entry.index, term: entry.term };
        }
        let HardState { term, commit, .. } = self.hard_state;
        if commit > before.index || term < before.term {
            return damaged(format!(
                "it ends with entry {} of term {}, but {commit} entries were committed by term {term}",
                before.index, before.term
            ));
        }
        if self.applied_index < self.truncated.index || self.applied_index > commit {
            let first = self.truncated.index;
            return damaged(format!(
                "{} entries were applied, but the log begins behind {first} and {commit} were committed",
                self.applied_index
            ));
        }
        Ok(())
    }
}
