//! Outputs of a replica: messages, durable writes and answers.

use serde::{Deserialize, Serialize};

use crate::outcome::{Effect, Outcome, ToArchive};

/// Number by which the caller identifies a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Work for the caller, to be done in the order of the fields.
#[derive(Debug, Default)]
pub struct Output {
    /// Messages to send at once.
    pub now: Vec<PeerMessage>,
    /// Answers to return at once. An answered command is durable in the logs of a majority, and applied here.
    pub replies: Vec<(Ticket, Result<Outcome, ProposeError>)>,
    /// Data to write in one transaction. Its durability must be reported with `Replica::persisted`; there is no further output before.
    pub persist: Option<Persist>,
    /// Messages to send when `persist` is durable.
    pub after_persist: Vec<PeerMessage>,
    /// New term and leader; `None` if they did not change.
    pub leadership: Option<Leadership>,
}

/// A message to another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    /// Id of the receiver.
    pub to: u64,
    /// Argument of the receiver's `Replica::step`.
    pub bytes: Vec<u8>,
}

/// One transaction, to be written in the order of the fields.
#[derive(Debug, PartialEq)]
pub struct Persist {
    /// Argument of `Replica::persisted`.
    pub number: u64,
    /// Whether the transaction must survive a power failure before `after_persist` is sent. If not, it may be written later, but in order:
    /// the database never contains it without all earlier ones. Effects in other databases must be durable before `applied_index` is.
    pub sync: bool,
    /// New beginning of the log: entries up to this one must be removed. `None` if it did not change.
    pub truncated: Option<LogPosition>,
    /// Entries to append. They replace all entries at and after the index of the first one.
    pub entries: Vec<LogEntry>,
    /// New raft state; `None` if it did not change.
    pub hard_state: Option<HardState>,
    /// Changes of the state's rows.
    pub rows: Rows,
    /// Effects, each with the index of the log entry that caused it, in order. Archived runs are in `archived` instead.
    pub effects: Vec<(u64, Effect)>,
    /// Runs to write to the archive.
    pub archived: Vec<ToArchive>,
    /// Index of the last entry whose changes are in `rows` and `effects`.
    pub applied_index: u64,
}

/// Rows: keys in text form, and encoded values.
pub type RowList = Vec<(String, Vec<u8>)>;

/// Changes of the state's rows.
#[derive(Debug, PartialEq)]
pub enum Rows {
    /// Changed rows with their new values; `None`: the row was removed.
    Changed(Vec<(String, Option<Vec<u8>>)>),
    /// A snapshot of another replica replaces the state: these are all rows, and the whole log must be removed.
    Replaced(RowList),
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Position in the log, from 1.
    pub index: u64,
    /// Term of the leader that appended the entry.
    pub term: u64,
    /// The encoded command; empty in the first entry of a leader's term.
    pub data: Vec<u8>,
}

/// Position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Index of an entry; 0: before the first entry.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
}

/// Raft's durable state of a voter, besides the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The highest known term.
    pub term: u64,
    /// Id of the replica that got this voter's vote in this term; 0: none.
    pub vote: u64,
    /// Index of the last entry that is known to be committed.
    pub commit: u64,
}

/// The present term and leader, as known to a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The present term.
    pub term: u64,
    /// Id of the leader; `None` if it is unknown.
    pub leader: Option<u64>,
    /// Whether this replica is the leader.
    pub is_self: bool,
}

/// A proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum ProposeError {
    /// Another replica is the leader, or none is. Nothing was written.
    #[error("this coordinator is not the leader{}", leader.map(|id| format!(": replica {id} is")).unwrap_or_default())]
    NotLeader { leader: Option<u64> },
    /// The command may be applied or not. The caller can repeat it with the same request id.
    #[error("the coordinator lost its leadership before the command was committed, so its outcome is unknown")]
    Indeterminate,
    /// There are too many uncommitted proposals. Nothing was written.
    #[error("too many uncommitted writes: retry later")]
    Busy,
    /// Nothing was written.
    #[error("the command takes {bytes} bytes, more than the limit of {limit} bytes")]
    TooLarge { bytes: usize, limit: usize },
}
