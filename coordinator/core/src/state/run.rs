//! A run: what was submitted, where it stands, and its checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{CodeVersion, DataFile, Override};
use lockstep_common::{Digest, Domain, Ending, NodeId, RunId};
use serde::{Deserialize, Serialize};

use super::corruption::Corruption;
use super::owed::Owed;
use super::witness::Word;
use crate::command::{Progress, Replay};
use crate::placement::Kind;
use lockstep_common::manifest::Share;

/// Failed checkpoints that a run remembers, the newest: they are for people, and a full disk makes many.
pub(crate) const FAILED_CHECKPOINTS: usize = 100;

/// Longest text (bytes) that is kept of what a process said: a reason, or its last output.
pub(crate) const TEXT_BYTES: usize = 4096;

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What never changes.
    pub submission: Submission,
    /// The job, parsed from `submission.job`.
    pub job: JobSpec,
    /// Where it stands.
    pub state: RunState,
    /// Committed checkpoints, by step.
    pub checkpoints: BTreeMap<u64, Checkpoint>,
    /// Shares of checkpoints that are not complete yet, by step and process; of the current generation.
    pub shares: BTreeMap<(u64, u32), Share>,
    /// Written checkpoints of a generation that has ended, by step, until the leader has opened them. No process is placed
    /// meanwhile.
    pub owed: BTreeMap<u64, Owed>,
}

/// What a run began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The run's id.
    pub id: RunId,
    /// Index of the log entry that created it: runs are queued, and listed, in this order.
    pub number: u64,
    /// The job in canonical form.
    pub job: String,
    /// Where the job's relative paths begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The data.
    pub data: Vec<DataFile>,
    /// What the generations' secrets are derived from.
    pub secret: [u8; 32],
    /// The checkpoint that it was resumed from.
    pub parent: Option<Digest>,
    /// What may differ from that checkpoint.
    pub accepted: Vec<String>,
    /// Set if it repeats a part of another run.
    pub replay: Option<Replay>,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// In a word.
    pub status: Status,
    /// The current placement's number, from 1; one that is queued has the number of the placement to come.
    pub generation: u64,
    /// What it trains on, once it was placed: a later generation on another kind would not give the same bits.
    pub kind: Option<Kind>,
    /// The current generation's processes, by number; empty while it is queued.
    pub placement: BTreeMap<u32, Placed>,
    /// As of the last block, unless that was rolled back.
    pub progress: Option<Progress>,
    /// When a process was last heard of.
    pub heard_at_ms: u64,
    /// When all processes were ready for the first time.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// What this generation begins with: the last committed checkpoint, or the parent.
    pub restore: Option<Restore>,
    /// What changes bits, as measured by the first process of this generation that was ready.
    pub numerics: Option<Measured>,
    /// What process 0 of this generation runs on.
    pub environment: BTreeMap<String, String>,
    /// What was otherwise than in a checkpoint, in this run or in those that it comes from, and was accepted.
    pub overrides: Vec<Override>,
    /// Processes that crashed since the last checkpoint.
    pub exits: u32,
    /// Processes that gave up since then for a reason that may pass.
    #[serde(default)]
    pub transients: u32,
    /// Generations in a row, the last ones, that ended before their first step for a reason that costs nothing.
    #[serde(default)]
    pub futile: u32,
    /// When the pause before the next attempt is over, in milliseconds since the epoch; 0: there is none.
    #[serde(default)]
    pub due_at_ms: u64,
    /// Generations before this one.
    pub restarts: u32,
    /// The last process that ended too early.
    pub last_exit: Option<Exit>,
    /// Checkpoints that could not be made, oldest first.
    pub failed_checkpoints: Vec<FailedCheckpoint>,
    /// Replicas that were found to differ, oldest first.
    pub corruptions: Vec<Corruption>,
    /// Written on it by people, as the note.
    pub tags: BTreeSet<String>,
    /// Empty if there is none.
    pub note: String,
    /// Times that the shares of the last checkpoint were rejected in this generation: processes that see it grow write
    /// theirs again.
    #[serde(default)]
    pub save_attempt: u32,
    /// What processes of this generation said of all, and nobody of another node yet.
    #[serde(default)]
    pub words: Vec<Word>,
    /// Nodes on which a process crashed or gave up since the last checkpoint, and how often.
    #[serde(default)]
    pub failed_on: BTreeMap<NodeId, u32>,
}

/// A checkpoint to begin from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Its id.
    pub checkpoint: Digest,
    /// Its step.
    pub step: u64,
}

/// A run's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Waits for devices.
    Queued {
        /// What for, for people.
        reason: String,
    },
    /// Placed; not all processes are ready.
    Starting,
    /// Trains.
    Running,
    /// Made its last step.
    Finished {
        /// Digest of the final state.
        state: Digest,
    },
    /// Ended before its last step.
    Failed {
        /// Why.
        reason: String,
    },
    /// Ended by a client.
    Cancelled,
    /// Made its last step, and could not save its last checkpoint: the final state is lost.
    Unsaved {
        /// Digest of the final state.
        state: Digest,
        /// Why.
        reason: String,
    },
}

/// A process of the current generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// On which node.
    pub node: NodeId,
    /// On which of its devices: index into [`super::Node::devices`].
    pub device: u32,
    /// The device's name.
    pub device_name: String,
    /// How far it is.
    pub phase: Phase,
    /// Where its exchange listens, once it is ready.
    pub address: Option<String>,
    /// The last report of it that was applied; 0: none.
    pub sequence: u64,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its node was told to start it.
    Assigned,
    /// Model and data are in memory.
    Ready,
    /// It made the last step.
    Finished {
        /// Digest of its final state.
        state: Digest,
        /// Whether the process is gone.
        exited: bool,
    },
}

/// What one process measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The process.
    pub process: u32,
    /// Values by key.
    pub values: BTreeMap<String, String>,
}

/// The end of a process that had not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Of which generation.
    pub generation: u64,
    /// The process.
    pub process: u32,
    /// Its node.
    pub node: NodeId,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Its last output.
    pub output: String,
    /// How it ended, in a word; `None` in states of builds that did not say.
    #[serde(default)]
    pub ending: Option<Ending>,
}

/// A committed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Digest of its manifest.
    pub id: Digest,
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The generation that made it.
    pub generation: u64,
    /// Milliseconds since the epoch.
    pub committed_at_ms: u64,
    /// Digest of the state in it.
    pub state: Digest,
}

/// A checkpoint that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheckpoint {
    /// Of which generation.
    pub generation: u64,
    /// Steps completed.
    pub step: u64,
    /// Why, the last time.
    pub reason: String,
    /// Milliseconds since the epoch, the last time.
    pub at_ms: u64,
    /// Times that it failed.
    #[serde(default = "once")]
    pub attempts: u32,
}

fn once() -> u32 {
    1
}

impl Run {
    /// A run that nobody has placed yet.
    pub(super) fn new(submission: Submission, job: JobSpec, restore: Option<Restore>, kind: Option<Kind>) -> Self {
        let state = RunState {
            status: Status::Queued { reason: String::new() },
            generation: 1,
            kind,
            placement: BTreeMap::new(),
            progress: None,
            heard_at_ms: submission.created_at_ms,
            started_at_ms: None,
            ended_at_ms: None,
            restore,
            numerics: None,
            environment: BTreeMap::new(),
            overrides: Vec::new(),
            exits: 0,
            transients: 0,
            futile: 0,
            due_at_ms: 0,
            restarts: 0,
            last_exit: None,
            failed_checkpoints: Vec::new(),
            corruptions: Vec::new(),
            tags: BTreeSet::new(),
            note: String::new(),
            save_attempt: 0,
            words: Vec::new(),
            failed_on: BTreeMap::new(),
        };
        Self { submission, job, state, checkpoints: BTreeMap::new(), shares: BTreeMap::new(), owed: BTreeMap::new() }
    }

    /// Its id.
    pub fn id(&self) -> &RunId {
        &self.submission.id
    }

    /// Which processes a generation waits for that has not begun, for people.
    pub fn waits_for(&self) -> Option<String> {
        if let Some((_, doubt)) = self.unheard_doubt() {
            return Some(doubt);
        }
        let late: Vec<u32> = match self.state.status {
            Status::Starting => {
                let placed = self.state.placement.iter();
                placed.filter(|(_, placed)| placed.phase == Phase::Assigned).map(|(process, _)| *process).collect()
            }
            _ => return None,
        };
        let first = self.name_of(*late.first()?);
        Some(match late.len() - 1 {
            0 => format!("waits for {first} to be ready"),
            more => format!("waits for {first} and {more} more to be ready"),
        })
    }

    /// Steps completed at its end: the job's, but for a replay.
    pub fn last_step(&self) -> u64 {
        self.submission.replay.as_ref().map_or(self.job.steps, |replay| replay.until)
    }

    /// Steps completed, as far as is known and was not rolled back.
    pub fn step(&self) -> u64 {
        let restored = self.state.restore.as_ref().map_or(0, |restore| restore.step);
        self.state.progress.as_ref().map_or(restored, |progress| progress.step)
    }

    /// What the next generation would begin with.
    pub fn last_checkpoint(&self) -> Option<Restore> {
        let last = self.checkpoints.values().next_back();
        last.map(|made| Restore { checkpoint: made.id, step: made.step }).or_else(|| self.state.restore.clone())
    }

    /// The secret that the processes of the current generation prove to each other.
    pub fn generation_secret(&self) -> [u8; 32] {
        let mut hasher = Domain::Secret.hasher();
        hasher.update(&self.submission.secret).update(&self.state.generation.to_le_bytes());
        *Digest::of(&hasher).as_bytes()
    }

    /// `process 1 on node-b`, for people.
    pub(super) fn name_of(&self, process: u32) -> String {
        match self.state.placement.get(&process) {
            Some(placed) => format!("process {process} on `{}`", placed.node),
            None => format!("process {process}"),
        }
    }

    /// The node of a process of the current generation.
    pub(super) fn node_of(&self, process: u32) -> Option<&NodeId> {
        self.state.placement.get(&process).map(|placed| &placed.node)
    }

    /// Ends the run. The placement stays for people to see; its devices are free.
    pub(super) fn end(&mut self, at_ms: u64, status: Status) {
        self.state.status = status;
        self.state.ended_at_ms = Some(at_ms);
    }

    /// Leaves the current generation: its processes' messages are void from now on (fencing).
    pub(super) fn next_generation(&mut self) {
        let restore = self.last_checkpoint();
        let state = &mut self.state;
        state.restore = restore;
        state.generation += 1;
        state.restarts += 1;
        state.placement.clear();
        state.progress = None;
        state.numerics = None;
        state.environment.clear();
        state.save_attempt = 0;
        state.words.clear();
        state.status = Status::Queued { reason: String::new() };
    }

    /// Remembers that the checkpoint at `step` will not be.
    pub(super) fn checkpoint_failed(&mut self, at_ms: u64, step: u64, reason: &str) {
        self.failed_in(at_ms, self.state.generation, step, reason);
    }

    /// The same, of an earlier generation.
    pub(super) fn failed_in(&mut self, at_ms: u64, generation: u64, step: u64, reason: &str) {
        let reason = shortened(reason);
        let failed = &mut self.state.failed_checkpoints;
        if let Some(again) = failed.iter_mut().find(|failed| (failed.generation, failed.step) == (generation, step)) {
            *again = FailedCheckpoint { generation, step, reason, at_ms, attempts: again.attempts.saturating_add(1) };
            return;
        }
        if failed.len() == FAILED_CHECKPOINTS {
            failed.remove(0);
        }
        failed.push(FailedCheckpoint { generation, step, reason, at_ms, attempts: 1 });
    }

    /// The newest checkpoint that failed, if none was committed after it.
    pub fn standing_failure(&self) -> Option<&FailedCheckpoint> {
        let reached = self.last_checkpoint().map_or(0, |last| last.step);
        self.state.failed_checkpoints.last().filter(|failed| failed.step > reached)
    }

    /// Whether the checkpoint at the last step is committed.
    pub fn is_saved(&self) -> bool {
        self.checkpoints.contains_key(&self.last_step())
    }

    /// Whether a process has finished without its share of the last checkpoint: the others need not try any more.
    pub fn save_is_given_up(&self) -> bool {
        let last = self.last_step();
        let without = |(process, placed): (&u32, &Placed)| {
            matches!(placed.phase, Phase::Finished { .. }) && !self.shares.contains_key(&(last, *process))
        };
        self.submission.replay.is_none() && !self.is_saved() && self.state.placement.iter().any(without)
    }
}

impl Status {
    /// Whether nothing will change it any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed { .. } | Self::Cancelled | Self::Unsaved { .. })
    }

    /// Its one-word name.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Finished { .. } => "finished",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Unsaved { .. } => "unsaved",
        }
    }

    /// Why it is queued, failed or not saved.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Queued { reason } | Self::Failed { reason } | Self::Unsaved { reason, .. } => Some(reason),
            Self::Starting | Self::Running | Self::Finished { .. } | Self::Cancelled => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}: {reason}", self.word()),
            None => f.write_str(self.word()),
        }
    }
}

/// A reason, whose first words say what happened and whose last ones why: of one that is longer than [`TEXT_BYTES`] the middle is cut.
pub(super) fn shortened(text: &str) -> String {
    const GAP: &str = "\n[..]\n";
    if text.len() <= TEXT_BYTES {
        return text.to_owned();
    }
    let (mut first, mut rest) = (TEXT_BYTES / 2, text.len() - (TEXT_BYTES / 2 - GAP.len()));
    while !text.is_char_boundary(first) {
        first -= 1;
    }
    while !text.is_char_boundary(rest) {
        rest += 1;
    }
    [&text[..first], GAP, &text[rest..]].concat()
}

/// The end of an output, where the cause usually stands, cut to [`TEXT_BYTES`].
pub(super) fn bounded(text: &str) -> String {
    let mut start = text.len().saturating_sub(TEXT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
