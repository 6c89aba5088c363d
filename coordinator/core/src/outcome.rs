//! Results of commands: the answer to the caller, and the effects that are written together with the state.

use lockstep_common::{NodeId, RunId};
use serde::{Deserialize, Serialize};

/// The answer of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The command created this run, or repeats the request that did.
    Run(RunId),
    /// The command was applied, or had been applied before.
    Done,
    /// The command changed nothing.
    Refused(Refusal),
}

/// The reason why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum Refusal {
    /// The job is invalid, or the command does not fit it.
    #[error("the job was refused: {0}")]
    Job(String),
    #[error("there is no run `{0}`")]
    NoRun(String),
    #[error("there is no checkpoint `{0}`")]
    NoCheckpoint(String),
    #[error("run `{run}` has already ended: {status}")]
    Ended { run: RunId, status: String },
    /// A report arrived before an earlier report of the same process.
    #[error("report {got} of process {process} arrived too early: report {expected} must come first")]
    OutOfOrder { process: u32, expected: u64, got: u64 },
    /// A report names a generation or process that does not exist.
    #[error("run `{run}` has no process {process} in generation {generation}; its current generation is {current}")]
    NoProcess { run: RunId, generation: u64, process: u32, current: u64 },
    /// The report came from an agent that does not run the process: of another node, or an earlier agent of the same node.
    #[error(
        "rejected a report of process {process} of run `{run}`: it came from the agent of node `{brought}` (incarnation {incarnation}), \
         but the process runs on node `{placed}`"
    )]
    NotItsAgent {
        run: RunId,
        process: u32,
        /// The node on which the process was placed.
        placed: NodeId,
        /// The node whose agent sent the report.
        brought: NodeId,
        /// Incarnation of the agent that sent the report.
        incarnation: String,
    },
    /// Another agent uses the node's name, and may still be running.
    #[error(
        "node name `{node}` is in use by an agent on host `{host}`, so the agent on host `{other}` cannot have it: start one of them \
         with another `worker --name`, or stop the first one"
    )]
    NodeTaken {
        node: NodeId,
        /// Host of the agent that uses the name.
        host: String,
        /// Host of the agent that requests the name.
        other: String,
    },
    /// Only nodes that are gone or lost can be removed.
    #[error("cannot remove node `{node}`, which is {state}: stop its worker first")]
    NodeThere {
        node: NodeId,
        /// Presence of the node: `alive`, `detached` or `leaving`.
        state: String,
    },
    /// Removing the node would remove its fences, too.
    #[error("cannot remove node `{0}`, because its devices are fenced: run `coord unfence {0}` first")]
    NodeFenced(NodeId),
    #[error("there is no node `{0}`")]
    NoNode(NodeId),
    #[error("run `{run}` cannot be replayed: {reason}")]
    Replay { run: RunId, reason: String },
    /// Tags or a note are invalid or too long.
    #[error("{0}")]
    Annotation(String),
    #[error("the job of the checkpoint has no data file `{0}`")]
    NoData(String),
    /// The node does not exist, or has no such device. The text names the missing object.
    #[error("there is no {0}")]
    NoDevice(String),
    /// The checkpoint is at or past the job's last step.
    #[error("checkpoint `{checkpoint}` is at step {step}, the job's last: nothing is left to train")]
    NothingLeft { checkpoint: String, step: u64 },
    /// The request id belongs to a different request, which created a run.
    #[error(
        "request id `{request}` was already used for another request, which created run `{run}`: use a new id for each request"
    )]
    RequestTaken { request: String, run: RunId },
    /// The state has [`crate::state::NODES`] nodes, and none of them can be removed automatically.
    #[error(
        "the coordinator already has {0} nodes, the maximum: remove one that is gone with `coord node remove NODE`"
    )]
    TooManyNodes(usize),
    /// The request id belongs to a different command, which created no run.
    #[error("request id `{0}` was already used for another command: use a new id for each request")]
    RequestUsed(String),
}

/// Something that must be stored in the same transaction as the state, but not in the state.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants explain their fields")]
pub enum Effect {
    /// Store a report block under (run, log index).
    AppendBlock {
        run: RunId,
        /// The process that sent the block.
        process: u32,
        /// The encoded `ReportBlock`.
        bytes: Vec<u8>,
    },
    /// Store a run that leaves the state.
    Archive(ToArchive),
    /// The run was rolled back: in all blocks before this log index, steps after `step` are void.
    Rewind { run: RunId, step: u64 },
}

/// The stored form of a run that leaves the state.
#[derive(Clone, Debug, PartialEq)]
pub struct ToArchive {
    /// Id of the run; its rows contain it, too.
    pub run: RunId,
    /// Index of the log entry that created the run; lists are sorted by it.
    pub number: u64,
    /// The encoded [`crate::view::RunRow`], so that a list does not have to rebuild the run from its rows.
    pub for_lists: Vec<u8>,
    /// All rows of the run: key and encoded value.
    pub rows: Vec<(String, Vec<u8>)>,
}
