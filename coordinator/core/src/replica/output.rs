//! What a replica hands out: messages, durable writes, answers.

use serde::{Deserialize, Serialize};

use crate::outcome::{Effect, Outcome, ToArchive};

/// The caller's name for a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A turn's worth of work, in the order of the fields.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent at once.
    pub now: Vec<PeerMessage>,
    /// To be answered at once: what an answer tells of is durable in a majority's logs, and applied here.
    pub replies: Vec<(Ticket, Result<Outcome, ProposeError>)>,
    /// To be written in one transaction, and then reported with `Replica::persisted`; no further output comes before.
    pub persist: Option<Persist>,
    /// To be sent when `persist` is durable.
    pub after_persist: Vec<PeerMessage>,
    /// Present if it changed.
    pub leadership: Option<Leadership>,
}

/// A message to another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    /// The receiver's id.
    pub to: u64,
    /// For the receiver's `Replica::step`.
    pub bytes: Vec<u8>,
}

/// One transaction. Its parts are written in the order of the fields.
#[derive(Debug, PartialEq)]
pub struct Persist {
    /// For `Replica::persisted`.
    pub number: u64,
    /// Whether it must survive a power cut before `after_persist` leaves. If not, it may be written lazily, but in
    /// order: a store never holds this without all that came before. Effects stored elsewhere must be durable no
    /// later than `applied_index`.
    pub sync: bool,
    /// The log begins behind this entry; all up to it is to be dropped. Present if it changed.
    pub truncated: Option<LogPosition>,
    /// Entries to append. They replace whatever the log has at and above the first one's index.
    pub entries: Vec<LogEntry>,
    /// Present if it changed.
    pub hard_state: Option<HardState>,
    /// The state machine's rows.
    pub rows: Rows,
    /// Effects with the index of the log entry that caused each, in order; but for what goes to the archive.
    pub effects: Vec<(u64, Effect)>,
    /// Runs that leave the state for the archive.
    pub archived: Vec<ToArchive>,
    /// The last entry that `rows` and `effects` know of.
    pub applied_index: u64,
}

/// Keys and values of rows.
pub type RowList = Vec<(String, Vec<u8>)>;

/// A write of state machine rows.
#[derive(Debug, PartialEq)]
pub enum Rows {
    /// These rows changed; none: the row is gone.
    Changed(Vec<(String, Option<Vec<u8>>)>),
    /// A snapshot of another replica took the place of everything: these are all rows, and the whole log goes.
    Replaced(RowList),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its place, from 1.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// The encoded command; empty: none, the first entry of a leader.
    pub data: Vec<u8>,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Index; 0: before the first entry.
    pub index: u64,
    /// Term of the entry there.
    pub term: u64,
}

/// What a voter promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The highest term seen.
    pub term: u64,
    /// Whom it voted for in this term; 0: nobody.
    pub vote: u64,
    /// The last entry known to be committed.
    pub commit: u64,
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader's id.
    pub leader: Option<u64>,
    /// Whether this replica is the leader.
    pub is_self: bool,
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads, or none does. Nothing was written.
    #[error("this coordinator is not the leader{}", leader.map(|id| format!(": number {id} is")).unwrap_or_default())]
    NotLeader {
        /// Who leads.
        leader: Option<u64>,
    },
    /// Leadership was lost meanwhile: the command may or may not be applied. Ask again with the same request id.
    #[error("leadership was lost meanwhile: the outcome is not known")]
    Indeterminate,
    /// Too much is under way. Nothing was written.
    #[error("too many writes are under way")]
    Busy,
    /// Nothing was written.
    #[error("the command takes {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}
