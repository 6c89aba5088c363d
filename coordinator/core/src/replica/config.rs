//! Configuration of a replica, and the data that it recovers from its disk.

use super::message;
use super::output::{HardState, LogEntry, LogPosition};
use crate::state::ClusterState;

/// Maximum total size of the entries in one message. A single entry may be larger.
pub(super) const MESSAGE_BYTES: u64 = 1 << 20;

/// Maximum number of unacknowledged messages with entries per follower.
pub(super) const MESSAGES_IN_FLIGHT: usize = 64;

/// Maximum total size of uncommitted proposals. Further proposals are refused as `Busy`.
pub(super) const UNCOMMITTED_BYTES: u64 = 64 << 20;

/// Maximum total size of the entries that one [`Output`](super::Output) applies.
pub(super) const APPLY_BYTES: u64 = 16 << 20;

/// Total size of applied entries that stay in memory and on disk for followers that lag.
pub(super) const KEPT_BYTES: usize = 64 << 20;

/// Configuration of a replica. Times are in ticks, whose length the caller chooses.
#[derive(Clone, Debug)]
pub struct Config {
    /// Id of this replica; at least 1.
    pub id: u64,
    /// Ids of all replicas including this one, in ascending order. They must be equal in all replicas and never change.
    pub voters: Vec<u64>,
    /// Silence of the leader after which the first voter starts an election; more than twice `heartbeat_ticks`. Each further voter waits
    /// longer by a fixed time, so elections do not collide and need no random numbers.
    pub election_ticks: usize,
    /// Ticks between heartbeats; at least 1.
    pub heartbeat_ticks: usize,
    /// Number of applied entries that stay in memory and on disk for followers that lag. Followers that need older ones get a snapshot.
    pub kept_entries: usize,
}

/// The recovered contents of the database: the combined result of every written [`Persist`](super::Persist).
#[derive(Debug, Default)]
pub struct Recovered {
    /// The log begins after this entry.
    pub truncated: LogPosition,
    /// The entries of the log, without gaps.
    pub entries: Vec<LogEntry>,
    /// Term, vote and commit index of raft.
    pub hard_state: HardState,
    /// The last entry that `state` contains.
    pub applied_index: u64,
    /// The state, rebuilt from its rows.
    pub state: ClusterState,
}

/// A replica cannot start with this configuration or recovered data.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The configuration is invalid.
    #[error("invalid configuration of the replica: {0}")]
    Config(String),
    /// The log has gaps, or contradicts the recovered state.
    #[error("the log is damaged: {0}")]
    Log(String),
}

impl Config {
    pub(super) fn check(&self) -> Result<(), RecoverError> {
        let refuse = |what: String| Err(RecoverError::Config(what));
        if self.id == 0 || self.voters.contains(&0) {
            return refuse("the ids of replicas must be at least 1".into());
        }
        if !self.voters.contains(&self.id) {
            return refuse(format!("replica {} is not among the voters {:?}", self.id, self.voters));
        }
        if !self.voters.is_sorted_by(|a, b| a < b) {
            return refuse(format!("the voters {:?} must be in ascending order, without duplicates", self.voters));
        }
        if self.heartbeat_ticks == 0 || self.election_ticks <= 2 * self.heartbeat_ticks {
            let (election, heartbeat) = (self.election_ticks, self.heartbeat_ticks);
            return refuse(format!(
                "the election timeout of {election} ticks must be more than twice the heartbeat interval of {heartbeat} ticks"
            ));
        }
        Ok(())
    }

    /// Election timeout of this voter, in ticks.
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
                "it ends with entry {} of term {}, but {commit} entries were committed up to term {term}",
                before.index, before.term
            ));
        }
        if self.applied_index < self.truncated.index || self.applied_index > commit {
            let first = self.truncated.index;
            return damaged(format!(
                "{} entries were applied, but the log begins after entry {first}, and {commit} entries were committed",
                self.applied_index
            ));
        }
        Ok(())
    }
}
