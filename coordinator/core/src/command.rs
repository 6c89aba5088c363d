//! Commands: what goes into the replicated log. What comes back is in `outcome.rs`.
//!
//! Time, randomness and identity enter as fields that the leader or the client filled in (I2).

use std::collections::BTreeMap;

use lockstep_common::manifest::{CodeVersion, DataFile, Override, Share};
use lockstep_common::{Digest, Ending, NodeId, RequestId, RunId};
use serde::{Deserialize, Serialize};

/// A change of the cluster's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A client submits a job.
    Submit {
        /// At most once (I4).
        request: RequestId,
        /// Milliseconds since the epoch, by the leader's clock.
        at_ms: u64,
        /// The job in canonical form; checked before it is proposed, and again when applied.
        job: String,
        /// Where the job's relative paths begin.
        base_dir: String,
        /// The code.
        code: Option<CodeVersion>,
        /// The data.
        data: Vec<DataFile>,
        /// 32 random bytes from the leader; the generations' secrets are derived from them.
        secret: [u8; 32],
    },
    /// A client starts a new run from a checkpoint.
    Resume {
        /// At most once.
        request: RequestId,
        /// Leader's clock.
        at_ms: u64,
        /// The checkpoint.
        checkpoint: Digest,
        /// What may differ from it, as `numerics.cpu.model`, or what stands before a dot in such a key.
        accepted: Vec<String>,
        /// Where the job's relative paths begin now; none: where they did.
        base_dir: Option<String>,
        /// Data that was accepted as it is now, in the place of files of the same path.
        data: Vec<DataFile>,
        /// Code that was accepted as it is now; none: the checkpoint's.
        code: Option<CodeVersion>,
        /// As in `Submit`.
        secret: [u8; 32],
    },
    /// A client ends a run.
    Cancel {
        /// At most once.
        request: RequestId,
        /// Leader's clock.
        at_ms: u64,
        /// The run.
        run: RunId,
    },
    /// A person writes on a run. It changes nothing about it.
    Annotate {
        /// At most once.
        request: RequestId,
        /// The run.
        run: RunId,
        /// In place of those that it has.
        tags: Option<Vec<String>>,
        /// As well.
        note: Option<String>,
    },
    /// An agent opened its stream.
    NodeJoined {
        /// Leader's clock.
        at_ms: u64,
        /// The node's name.
        node: NodeId,
        /// Drawn at the agent's start. Another one than before: its processes are gone.
        incarnation: String,
        /// Names the agent's data directory, which one agent at a time uses; empty in agents that have none.
        #[serde(default)]
        agent: String,
        /// Host name, for people.
        host: String,
        /// One process fits on each.
        devices: Vec<Device>,
    },
    /// A node's agent is about to end: it gets no more work.
    NodeLeaving {
        /// Leader's clock.
        at_ms: u64,
        /// The node.
        node: NodeId,
        /// The incarnation that leaves.
        incarnation: String,
    },
    /// A node's stream has ended. What runs there goes on, and nothing more is placed there until the node is back.
    NodeDetached {
        /// Leader's clock.
        at_ms: u64,
        /// The node.
        node: NodeId,
        /// Index of the log entry with which that stream's agent joined; one that has joined again since is there.
        joined: u64,
    },
    /// A person, or the leader after a time, forgets a node that is not there.
    NodeForgotten {
        /// At most once.
        request: RequestId,
        /// The node.
        node: NodeId,
    },
    /// A node was silent for longer than its lease.
    NodeLost {
        /// Leader's clock.
        at_ms: u64,
        /// The node.
        node: NodeId,
        /// The incarnation that was silent; another one is not affected.
        incarnation: String,
    },
    /// A process said something, through its agent.
    Report {
        /// Leader's clock.
        at_ms: u64,
        /// Of which run.
        run: RunId,
        /// Of which generation; older ones are acknowledged and change nothing (fencing).
        generation: u64,
        /// Which process.
        process: u32,
        /// From 1 without gaps; one seen before is acknowledged and changes nothing, one from the future is refused.
        sequence: u64,
        /// Whose agent brought it; `None` in logs of builds that did not say.
        #[serde(default)]
        from: Option<Messenger>,
        /// What it said.
        body: Said,
    },
    /// A client repeats a part of a run.
    Replay {
        /// At most once.
        request: RequestId,
        /// Leader's clock.
        at_ms: u64,
        /// What is repeated.
        replay: Replay,
        /// Where to begin: a checkpoint of the run, or the one that it was resumed from; `None`: where the run began.
        checkpoint: Option<Digest>,
        /// As in `Submit`.
        secret: [u8; 32],
    },
    /// A person takes a node's devices out of use, or gives them back.
    Fence {
        /// At most once.
        request: RequestId,
        /// Leader's clock.
        at_ms: u64,
        /// The node.
        node: NodeId,
        /// The devices with this name; `None`: all of the node.
        device: Option<String>,
        /// Out of use, or back.
        fenced: bool,
    },
    /// The leader opened every blob of a checkpoint whose shares are all there: the checkpoint exists from now on.
    Commit {
        /// Leader's clock.
        at_ms: u64,
        /// The run.
        run: RunId,
        /// The generation that wrote it.
        generation: u64,
        /// Steps completed.
        step: u64,
        /// The manifest whose blobs were opened; shares that give another one are not committed.
        checkpoint: Digest,
    },
    /// The leader could not open what a checkpoint names, or its shares contradict each other.
    CommitFailed {
        /// Leader's clock.
        at_ms: u64,
        /// The run.
        run: RunId,
        /// The generation that wrote it.
        generation: u64,
        /// Steps completed.
        step: u64,
        /// Why.
        reason: String,
    },
    /// The leader's configuration of what is decided here.
    Configure {
        /// How often a run is tried again.
        retries: Retries,
    },
    /// Nothing was heard for too long of processes of a generation that are not ready.
    Silent {
        /// Leader's clock.
        at_ms: u64,
        /// The run.
        run: RunId,
        /// The generation that starts.
        generation: u64,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The pause before a run's next attempt is over.
    Due {
        /// The run.
        run: RunId,
        /// The generation that waited.
        generation: u64,
    },
}

/// The agent that brought a report, as the coordinator knows it from its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messenger {
    /// The node that it joined as.
    pub node: NodeId,
    /// Drawn at the agent's start: another one means that all its earlier processes are gone.
    pub incarnation: String,
}

/// How often a run is tried again after processes that ended too early, without a new checkpoint in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Processes that crashed, with which the run is given up; at least 1.
    pub crashes: u32,
    /// Processes that gave up for a reason that may pass, with which the run is given up; at least 1.
    pub transients: u32,
    /// Pause before the third attempt, in milliseconds; it doubles with each further one. The second follows at once.
    pub pause_ms: u64,
    /// Where the doubling ends, in milliseconds.
    pub longest_pause_ms: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { crashes: 5, transients: 5, pause_ms: 0, longest_pause_ms: 0 }
    }
}

impl Retries {
    /// The pause before the next attempt, after `count` processes that ended for one cause.
    pub fn pause_ms(&self, count: u32) -> u64 {
        let doubled = count.saturating_sub(2).min(32);
        if count < 2 { 0 } else { self.pause_ms.saturating_mul(1 << doubled).min(self.longest_pause_ms) }
    }
}

/// A part of a run, to be made again and compared with what was recorded. Such a run makes no checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The run that is repeated.
    pub of: RunId,
    /// Steps completed at the end.
    pub until: u64,
    /// Steps between fingerprints, in place of the job's; 0: none.
    pub fingerprints_every: u64,
}

/// A device of a node: room for one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `cpu` (as often as the agent offers slots) or `cuda:N`.
    pub name: String,
    /// What it is, for people.
    pub model: String,
    /// Its memory.
    pub memory_bytes: u64,
}

/// What a process said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// Model and data are in memory; the exchange listens.
    Ready {
        /// Where.
        address: String,
        /// What is known to change bits; must be equal in all processes of the generation, and on a resume to the
        /// manifest's (key by key: a difference fails the run, naming the key and both values).
        numerics: BTreeMap<String, String>,
        /// What it runs on.
        environment: BTreeMap<String, String>,
    },
    /// A block of reports: opaque here, stored beside the state.
    Block {
        /// Progress at its end, if it holds steps (only from process 0).
        progress: Option<Progress>,
        /// The encoded `ReportBlock`.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// A share of a checkpoint is written. With the last one the leader opens its blobs ([`Command::Commit`]).
    Share(Share),
    /// A share could not be written: that checkpoint will not be, the run goes on. The run's last one is tried again.
    ShareFailed {
        /// Of the checkpoint at this step.
        step: u64,
        /// Why.
        reason: String,
    },
    /// The process made its last step.
    Finished {
        /// Steps completed.
        step: u64,
        /// Digest of the final state; equal in all processes, else the run fails as corrupt.
        state: Digest,
    },
    /// The process gave up.
    Failed {
        /// Why.
        reason: String,
        /// The reason may pass: the run is tried again. Else it would come again, and the run fails.
        #[serde(default)]
        transient: bool,
    },
    /// The process ended (its agent says so). Without `Finished` before: a new generation.
    Exited {
        /// Exit code, or 128 + signal.
        code: i32,
        /// Its last output.
        output: String,
        /// How its agent names that; `None`: as the code says.
        #[serde(default)]
        ending: Option<Ending>,
    },
    /// Replicas that should be equal are not. The process that says so has stopped.
    Corrupt {
        /// Steps completed.
        step: u64,
        /// The last step at which all agreed, or where the generation began.
        agreed: u64,
        /// What all tensors of each process come to, by process.
        fingerprints: Vec<u64>,
        /// The tensors that differ, in the order of a forward pass; empty if it could not be learned.
        tensors: Vec<String>,
        /// What the ranks computed in the steps after `agreed`: a word for each rank of the first step, then of the
        /// second, and so on, as far as it is known.
        trail: Vec<u64>,
    },
    /// All processes agreed at a step that was asked for ([`crate::Assigned::judge_at`]).
    Agreed {
        /// Steps completed.
        step: u64,
        /// What all tensors come to.
        fingerprint: u64,
        /// As in `Corrupt`, of the steps since the last one at which the processes compared.
        trail: Vec<u64>,
    },
    /// What was derived anew because a person accepted other data than the checkpoint's.
    Derived {
        /// Each of them.
        overrides: Vec<Override>,
    },
    /// A share that the process has written and the coordinator cannot take: its description is too large.
    ShareRefused {
        /// Of the checkpoint at this step.
        step: u64,
        /// In words, with both lengths.
        reason: String,
    },
}

/// Where training stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps completed.
    pub step: u64,
    /// Bits of the last loss (f64).
    pub loss: u64,
    /// Bits of the last gradient norm (f64).
    pub grad_norm: u64,
    /// Samples a second over the block.
    pub samples_per_second: f64,
}
