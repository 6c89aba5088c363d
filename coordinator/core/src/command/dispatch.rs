//! The closed enum of commands.

use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{Digest, NodeId, RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::nodes::Device;
use super::replay::Replay;
use super::report::Messenger;
use super::report_body::Said;
use super::retries::Retries;

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
