//! Messages between replicas. They have types of their own, so that raft's old protobuf library parses no bytes from a network.
//!
//! A message is a version byte and postcard. Commands in messages have a separate version. Messages at which raft would panic are rejected
//! here or in `Replica::step`, with an error.

use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use serde::{Deserialize, Serialize};

use super::output::{LogEntry, LogPosition};
use crate::command::Command;
use crate::formats::{self, COMMAND_VERSION, EncodingError};

/// Maximum size of one encoded command, in bytes.
pub(super) const COMMAND_BYTES: usize = 16 << 20;

/// Version byte of messages.
const VERSION: u8 = 1;

/// Limit of indices and terms. Larger numbers are rejected, because arithmetic with them could overflow.
const LIMIT: u64 = 1 << 62;

/// A message was rejected.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum StepError {
    /// The bytes are not a message, or not a command, of this version.
    #[error("not a valid message or command of this version of Lockstep")]
    Malformed(#[source] Option<EncodingError>),
    /// The message is for another replica, or its sender is not a voter.
    #[error("rejected a message from replica {from} to replica {to}: wrong receiver or unknown sender")]
    Stranger { from: u64, to: u64 },
    /// The message contradicts itself, or this replica's log.
    #[error("rejected an invalid message of replica {from}: {detail}")]
    Nonsense { from: u64, detail: String },
    /// Raft returned an error.
    #[error("raft rejected the message")]
    Raft(#[source] raft::Error),
}

/// The kinds of messages that replicas exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Append,
    AppendResponse,
    Vote,
    VoteResponse,
    PreVote,
    PreVoteResponse,
    Heartbeat,
    HeartbeatResponse,
    Snapshot,
}

const KINDS: [(Kind, MessageType); 9] = [
    (Kind::Append, MessageType::MsgAppend),
    (Kind::AppendResponse, MessageType::MsgAppendResponse),
    (Kind::Vote, MessageType::MsgRequestVote),
    (Kind::VoteResponse, MessageType::MsgRequestVoteResponse),
    (Kind::PreVote, MessageType::MsgRequestPreVote),
    (Kind::PreVoteResponse, MessageType::MsgRequestPreVoteResponse),
    (Kind::Heartbeat, MessageType::MsgHeartbeat),
    (Kind::HeartbeatResponse, MessageType::MsgHeartbeatResponse),
    (Kind::Snapshot, MessageType::MsgSnapshot),
];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wire {
    kind: Kind,
    to: u64,
    from: u64,
    term: u64,
    log_term: u64,
    index: u64,
    commit: u64,
    commit_term: u64,
    reject: bool,
    reject_hint: u64,
    entries: Vec<LogEntry>,
    snapshot: Option<(LogPosition, Vec<u8>)>,
}

/// Encodes a message of raft.
pub(super) fn encode(message: &Message) -> Vec<u8> {
    let kind = KINDS.iter().find(|(_, raft)| *raft == message.get_msg_type());
    let (kind, _) = kind.expect("raft sends no other kinds: proposals, reads and transfers are not used");
    let snapshot = (*kind == Kind::Snapshot).then(|| {
        let snapshot = message.get_snapshot();
        (position(snapshot), snapshot.data.to_vec())
    });
    let wire = Wire {
        kind: *kind,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        entries: message.entries.iter().map(from_raft).collect(),
        snapshot,
    };
    versioned(&wire)
}

/// Decodes a message, and checks everything that does not need the log. Only voters may send messages.
pub(super) fn decode(bytes: &[u8], id: u64, voters: &[u64]) -> Result<Message, StepError> {
    let wire: Wire = unversioned(bytes)?;
    let Wire { from, to, .. } = wire;
    if to != id || from == id || !voters.contains(&from) {
        return Err(StepError::Stranger { from, to });
    }
    let nonsense = |detail: String| Err(StepError::Nonsense { from, detail });
    let position = wire.snapshot.as_ref().map(|(position, _)| *position).unwrap_or_default();
    let numbers = [
        wire.term,
        wire.log_term,
        wire.index,
        wire.commit,
        wire.commit_term,
        wire.reject_hint,
        position.index,
        position.term,
    ];
    if numbers.iter().any(|&number| number >= LIMIT) || wire.term == 0 {
        return nonsense("a term or an index is out of range".into());
    }
    if !wire.entries.is_empty() && wire.kind != Kind::Append {
        return nonsense(format!("a message of kind {:?} must have no entries", wire.kind));
    }
    if wire.snapshot.is_some() != (wire.kind == Kind::Snapshot) || position.term > wire.term {
        return nonsense("its snapshot is missing, unexpected, or of a later term".into());
    }
    if wire.snapshot.is_some() && (position.index == 0 || position.term == 0) {
        return nonsense("its snapshot has index 0 or term 0".into());
    }
    // Raft uses term 0 for entries after the end of its log, so it would match there.
    if wire.kind == Kind::Append && (wire.index == 0) != (wire.log_term == 0) {
        return nonsense(format!("entry {} cannot be of term {}", wire.index, wire.log_term));
    }
    let mut before = LogPosition { index: wire.index, term: wire.log_term };
    for entry in &wire.entries {
        if entry.index != before.index + 1 || entry.term < before.term.max(1) || entry.term > wire.term {
            return nonsense(format!("entry {} of term {} is out of order", entry.index, entry.term));
        }
        if let Err(error) = decode_command(&entry.data) {
            return nonsense(format!("entry {}: {error}", entry.index));
        }
        before = LogPosition { index: entry.index, term: entry.term };
    }
    Ok(into_message(wire, voters))
}

fn into_message(wire: Wire, voters: &[u64]) -> Message {
    let (_, msg_type) = KINDS.iter().find(|(kind, _)| *kind == wire.kind).expect("every kind is in the table");
    let mut message = Message {
        msg_type: *msg_type,
        to: wire.to,
        from: wire.from,
        term: wire.term,
        log_term: wire.log_term,
        index: wire.index,
        commit: wire.commit,
        commit_term: wire.commit_term,
        reject: wire.reject,
        reject_hint: wire.reject_hint,
        entries: wire.entries.into_iter().map(into_raft).collect::<Vec<_>>().into(),
        ..Message::default()
    };
    if let Some((position, data)) = wire.snapshot {
        message.set_snapshot(snapshot(position, data, voters));
    }
    message
}

/// Makes a raft snapshot with these rows as data.
pub(super) fn snapshot(position: LogPosition, data: Vec<u8>, voters: &[u64]) -> Snapshot {
    let mut metadata = SnapshotMetadata { index: position.index, term: position.term, ..SnapshotMetadata::default() };
    metadata.set_conf_state(ConfState { voters: voters.to_vec(), ..ConfState::default() });
    let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
    snapshot.set_metadata(metadata);
    snapshot
}

/// Index and term of the last entry that a raft snapshot contains.
pub(super) fn position(snapshot: &Snapshot) -> LogPosition {
    LogPosition { index: snapshot.get_metadata().index, term: snapshot.get_metadata().term }
}

pub(super) fn from_raft(entry: &Entry) -> LogEntry {
    LogEntry { index: entry.index, term: entry.term, data: entry.data.to_vec() }
}

pub(super) fn into_raft(entry: LogEntry) -> Entry {
    Entry { index: entry.index, term: entry.term, data: entry.data.into(), ..Entry::default() }
}

/// Encodes the rows of a state as the data of a snapshot.
pub(super) fn encode_rows(rows: &[(String, Vec<u8>)]) -> Vec<u8> {
    versioned(&rows)
}

/// Decodes the data of a snapshot.
pub(super) fn decode_rows(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, StepError> {
    unversioned(bytes)
}

/// Encodes a command as the data of a log entry.
pub(super) fn encode_command(command: &Command) -> Vec<u8> {
    let mut data = vec![COMMAND_VERSION];
    data.append(&mut formats::encode(command));
    data
}

/// Decodes the data of a log entry; `None` for the empty first entry of a leader's term.
pub(super) fn decode_command(data: &[u8]) -> Result<Option<Command>, StepError> {
    let command = match data {
        [] => return Ok(None),
        _ if data.len() > COMMAND_BYTES => return Err(StepError::Malformed(None)),
        [COMMAND_VERSION, data @ ..] => formats::decode(data),
        _ => return Err(StepError::Malformed(None)),
    };
    command.map(Some).map_err(|error| StepError::Malformed(Some(error)))
}

fn versioned<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("our own types have known lengths, and memory does not run out")
}

fn unversioned<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StepError> {
    let Some((&VERSION, bytes)) = bytes.split_first() else { return Err(StepError::Malformed(None)) };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(StepError::Malformed(None)),
        Err(error) => Err(StepError::Malformed(Some(error.into()))),
    }
}
