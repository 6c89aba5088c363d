//! The replica: raft, the last log entries, the state, and the proposals without an answer.

use std::collections::BTreeMap;

use raft::eraftpb::{Entry, HardState as RaftHardState, Message, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use super::config::{self, Config, RecoverError, Recovered};
use super::log::LogTail;
use super::message::{self, StepError};
use super::output::{HardState, Leadership, LogPosition, Output, PeerMessage, Persist, ProposeError, Rows, Ticket};
use crate::command::Command;
use crate::outcome::{Effect, Outcome};
use crate::state::ClusterState;

/// Number of election timeouts after which an unacknowledged snapshot counts as lost and may be sent again.
const SNAPSHOT_PATIENCE: usize = 5;

/// One voter of the replicated log.
///
/// The owner calls a method for each input, and then [`Replica::take_output`] until it returns `None`.
pub struct Replica {
    config: Config,
    raw: RawNode<LogTail>,
    state: ClusterState,
    applied_index: u64,
    /// Term and ticket of each unanswered proposal, by log index.
    pending: BTreeMap<u64, (u64, Ticket)>,
    replies: Vec<(Ticket, Result<Outcome, ProposeError>)>,
    leadership: Leadership,
    /// Index of the empty first entry of this leader's term; `None` if the replica is not the leader.
    own_term_begins: Option<u64>,
    /// Number of the `Persist` that is not durable yet.
    writing: Option<u64>,
    /// Decoded state of the snapshot that raft has accepted and not returned yet.
    received: Option<(LogPosition, ClusterState)>,
    /// Ticks until a sent snapshot counts as lost, by receiver.
    snapshots_sent: BTreeMap<u64, usize>,
}

impl Replica {
    /// Starts a replica from its recovered data. A replica that lost its disk must not return under its old id, because it could vote twice
    /// in one term.
    ///
    /// # Errors
    /// `Config` for an invalid configuration, `Log` for a damaged log.
    pub fn new(config: Config, recovered: Recovered) -> Result<Self, RecoverError> {
        config.check()?;
        recovered.check()?;
        let Recovered { truncated, entries, hard_state, applied_index, state } = recovered;
        let hard_state = RaftHardState {
            term: hard_state.term,
            vote: hard_state.vote,
            commit: hard_state.commit,
            ..RaftHardState::default()
        };
        let entries = entries.into_iter().map(message::into_raft).collect();
        let log = LogTail::new(config.voters.clone(), hard_state, truncated, entries);
        let election_ticks = config.own_election_ticks();
        let raft_config = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            // Raft draws its timeout from this range. The range has one value, so the timeout is not random.
            min_election_tick: election_ticks,
            max_election_tick: election_ticks + 1,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied_index,
            max_size_per_msg: config::MESSAGE_BYTES,
            max_inflight_msgs: config::MESSAGES_IN_FLIGHT,
            max_uncommitted_size: config::UNCOMMITTED_BYTES,
            max_committed_size_per_ready: config::APPLY_BYTES,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let unsound = |error: raft::Error| RecoverError::Config(error.to_string());
        let mut raw = RawNode::new(&raft_config, log, &logger).map_err(unsound)?;
        if config.voters.len() == 1 {
            // A single voter becomes the leader at once.
            raw.campaign().map_err(unsound)?;
        }
        let mut replica = Self {
            config,
            raw,
            state,
            applied_index,
            pending: BTreeMap::new(),
            replies: Vec::new(),
            leadership: Leadership::default(),
            own_term_begins: None,
            writing: None,
            received: None,
            snapshots_sent: BTreeMap::new(),
        };
        replica.after_input();
        Ok(replica)
    }

    /// The state after the last applied entry.
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The present term and leader, as known to this replica.
    pub fn leadership(&self) -> Leadership {
        let raft = &self.raw.raft;
        let leader = (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id);
        Leadership { term: raft.term, leader, is_self: raft.state == StateRole::Leader }
    }

    /// Whether this replica is the leader and has applied all entries that earlier leaders committed. Only then does its state contain
    /// everything that was acknowledged.
    pub fn is_serving(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
            && self.own_term_begins.is_some_and(|index| self.applied_index >= index)
    }

    /// Advances the replica's time by one tick.
    pub fn tick(&mut self) {
        self.raw.tick();
        let mut lost = Vec::new();
        for (&to, ticks) in &mut self.snapshots_sent {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 {
                lost.push(to);
            }
        }
        for to in lost {
            self.snapshots_sent.remove(&to);
            let progress = self.raw.raft.prs().get(to).map(|progress| progress.state);
            if progress == Some(ProgressState::Snapshot) {
                self.raw.report_snapshot(to, SnapshotStatus::Failure);
            }
        }
        self.after_input();
    }

    /// Handles a message of another replica.
    ///
    /// # Errors
    /// If the message is invalid. The replica stays usable.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        let message = message::decode(bytes, self.config.id, &self.config.voters)?;
        self.check_against_log(&message)?;
        let mut received = None;
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let snapshot = message.get_snapshot();
            let refused = |detail: String| StepError::Nonsense { from: message.from, detail };
            let rows = message::decode_rows(&snapshot.data)?;
            let state = ClusterState::from_rows(rows).map_err(|error| refused(error.to_string()))?;
            received = Some((message::position(snapshot), state));
        }
        let stepped = self.raw.step(message).map_err(StepError::Raft);
        // Raft may have ignored the snapshot, or replaced an earlier one by it.
        let wanted = self.raw.snap().map(message::position);
        if received.as_ref().is_some_and(|(position, _)| Some(*position) == wanted) {
            self.received = received;
        }
        self.after_input();
        stepped
    }

    /// Proposes a command. A later output contains the answer in its `replies`, with this `ticket`.
    pub fn propose(&mut self, ticket: Ticket, command: &Command) {
        if let Err(error) = self.try_propose(ticket, command) {
            self.replies.push((ticket, Err(error)));
        }
    }

    fn try_propose(&mut self, ticket: Ticket, command: &Command) -> Result<(), ProposeError> {
        let Leadership { leader, is_self, .. } = self.leadership();
        if !is_self {
            return Err(ProposeError::NotLeader { leader });
        }
        let data = message::encode_command(command);
        if data.len() > message::COMMAND_BYTES {
            return Err(ProposeError::TooLarge { bytes: data.len(), limit: message::COMMAND_BYTES });
        }
        self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::Busy)?;
        let raft = &self.raw.raft;
        self.pending.insert(raft.raft_log.last_index(), (raft.term, ticket));
        Ok(())
    }

    /// Reports that the `Persist` with this number is durable. Other numbers are ignored.
    pub fn persisted(&mut self, number: u64) {
        if self.writing.take_if(|writing| *writing == number).is_some() {
            self.raw.on_persist_ready(number);
            // Not earlier: raft requires that applied entries are durable, and a snapshot is durable only now.
            self.raw.advance_apply_to(self.applied_index);
            self.after_input();
        }
    }

    /// The next work for the caller. `None` if there is none, or if the last `Persist` was not reported as durable yet.
    pub fn take_output(&mut self) -> Option<Output> {
        if self.writing.is_some() {
            return None;
        }
        let mut out = Output { replies: std::mem::take(&mut self.replies), ..Output::default() };
        let leadership = self.leadership();
        if leadership != self.leadership {
            self.leadership = leadership;
            out.leadership = Some(leadership);
        }
        if self.raw.has_ready() {
            self.take_ready(&mut out);
        }
        self.make_wanted_snapshot();
        let empty = out.now.is_empty() && out.replies.is_empty() && out.persist.is_none() && out.leadership.is_none();
        (!empty).then_some(out)
    }

    fn take_ready(&mut self, out: &mut Output) {
        let mut ready = self.raw.ready();
        out.now = self.encode_all(&ready.take_messages());
        let mut rows = Rows::Changed(Vec::new());
        let mut truncated = None;
        if !ready.snapshot().is_empty() {
            let position = message::position(ready.snapshot());
            let state = self.received.take().filter(|(of, _)| *of == position).map(|(_, state)| state);
            self.state = state.expect("raft only has snapshots that `step` decoded");
            self.applied_index = position.index;
            self.raw.mut_store().replace(position);
            rows = Rows::Replaced(self.state.rows());
            truncated = Some(position);
        }
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        let hard_state = ready.hs().cloned();
        if let Some(hard_state) = &hard_state {
            self.raw.mut_store().hard_state.clone_from(hard_state);
        }
        let applied_before = self.applied_index;
        let (mut effects, mut archived) = (Vec::new(), Vec::new());
        for (index, effect) in self.apply_all(&ready.take_committed_entries(), &mut out.replies) {
            match effect {
                Effect::Archive(run) => archived.push(run),
                Effect::AppendBlock { .. } | Effect::Rewind { .. } => effects.push((index, effect)),
            }
        }
        if let Rows::Changed(changed) = &mut rows {
            *changed = self.state.take_changes();
        }
        let after_persist = self.encode_all(&ready.take_persisted_messages());
        let (number, sync) = (ready.number(), ready.must_sync());
        self.raw.advance_append_async(ready);
        if let Some(position) = self.raw.mut_store().compact(self.applied_index, self.config.kept_entries) {
            truncated = Some(position);
        }

        let applied = self.applied_index > applied_before;
        if entries.is_empty() && hard_state.is_none() && truncated.is_none() && !applied {
            // Nothing to write, so these messages need not wait.
            out.now.extend(after_persist);
            self.raw.on_persist_ready(number);
            return;
        }
        self.writing = Some(number);
        out.after_persist = after_persist;
        out.persist = Some(Persist {
            number,
            sync,
            truncated,
            entries: entries.iter().map(message::from_raft).collect(),
            hard_state: hard_state.map(|hs| HardState { term: hs.term, vote: hs.vote, commit: hs.commit }),
            rows,
            effects,
            archived,
            applied_index: self.applied_index,
        });
    }

    fn apply_all(
        &mut self,
        entries: &[Entry],
        replies: &mut Vec<(Ticket, Result<Outcome, ProposeError>)>,
    ) -> Vec<(u64, Effect)> {
        let mut effects = Vec::new();
        for entry in entries {
            self.applied_index = entry.index;
            let command = message::decode_command(&entry.data).expect("entries were decoded before they were appended");
            let Some(command) = command else { continue };
            let applied = self.state.apply(entry.index, &command);
            effects.extend(applied.effects.into_iter().map(|effect| (entry.index, effect)));
            if let Some((term, ticket)) = self.pending.remove(&entry.index) {
                let own = term == entry.term;
                replies.push((ticket, if own { Ok(applied.outcome) } else { Err(ProposeError::Indeterminate) }));
            }
        }
        effects
    }

    /// Answers proposals of earlier terms with an error, and updates `own_term_begins`.
    fn after_input(&mut self) {
        let now = self.leadership();
        let stays = |term: u64| now.is_self && term == now.term;
        let gone: Vec<u64> =
            self.pending.iter().filter(|(_, (term, _))| !stays(*term)).map(|(&index, _)| index).collect();
        for index in gone {
            if let Some((_, ticket)) = self.pending.remove(&index) {
                self.replies.push((ticket, Err(ProposeError::Indeterminate)));
            }
        }
        if !now.is_self {
            self.own_term_begins = None;
        } else if self.own_term_begins.is_none() {
            // A new leader appends an empty entry at once, and nothing was proposed since.
            self.own_term_begins = Some(self.raw.raft.raft_log.last_index());
        }
    }

    /// Rejects messages at which raft would panic. Only a replica with another history can send them. Messages of earlier terms pass,
    /// because raft ignores them.
    fn check_against_log(&self, message: &Message) -> Result<(), StepError> {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        let nonsense = |detail: String| Err(StepError::Nonsense { from: message.from, detail });
        match message.get_msg_type() {
            _ if message.term < raft.term => Ok(()),
            MessageType::MsgHeartbeat if message.commit > last => {
                nonsense(format!("it commits entry {}, but the log ends at {last}", message.commit))
            }
            MessageType::MsgAppendResponse
                if message.term == raft.term
                    && raft.state == StateRole::Leader
                    && !message.reject
                    && message.index > last =>
            {
                nonsense(format!("it acknowledges entry {}, but the leader's log ends at {last}", message.index))
            }
            _ => Ok(()),
        }
    }

    fn make_wanted_snapshot(&mut self) {
        if !self.raw.store().snapshot_wanted.take() || self.applied_index == 0 {
            return;
        }
        let Ok(term) = self.raw.store().term_of(self.applied_index) else { return };
        let position = LogPosition { index: self.applied_index, term };
        let data = message::encode_rows(&self.state.rows());
        let snapshot = message::snapshot(position, data, &self.config.voters);
        self.raw.mut_store().snapshot = Some(snapshot);
    }

    fn encode_all(&mut self, messages: &[Message]) -> Vec<PeerMessage> {
        let patience = self.config.election_ticks * SNAPSHOT_PATIENCE;
        let encode = |message: &Message| {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots_sent.insert(message.to, patience);
            }
            PeerMessage { to: message.to, bytes: message::encode(message) }
        };
        messages.iter().map(encode).collect()
    }
}
