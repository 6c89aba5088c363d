//! What comes back after a command was applied: an answer, and what else must be written with the state.

use lockstep_common::{NodeId, RunId};
use serde::{Deserialize, Serialize};

/// What applying a command answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// A run was created, or the request that created it was repeated.
    Run(RunId),
    /// Applied.
    Done,
    /// Refused; nothing changed.
    Refused(Refusal),
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The job is not sound.
    #[error("the job was refused: {0}")]
    Job(String),
    /// No such run.
    #[error("there is no run `{0}`")]
    NoRun(String),
    /// No such checkpoint.
    #[error("there is no checkpoint `{0}`")]
    NoCheckpoint(String),
    /// The run has ended already.
    #[error("run `{run}` has already ended: {status}")]
    Ended {
        /// The run.
        run: RunId,
        /// How.
        status: String,
    },
    /// A report came before the one that precedes it.
    #[error("report {got} of process {process} came before report {expected}")]
    OutOfOrder {
        /// The process.
        process: u32,
        /// Next expected sequence number.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// A report of a generation, or of a process in it, that nobody placed.
    #[error("run `{run}`, now at generation {current}, has no process {process} in generation {generation}")]
    NoProcess {
        /// The run.
        run: RunId,
        /// The generation that the report names.
        generation: u64,
        /// The process that it names.
        process: u32,
        /// The run's generation.
        current: u64,
    },
    /// A report that another node's agent brought than the one that runs the process, or an earlier agent of that node.
    #[error(
        "process {process} of run `{run}` runs on node `{placed}`: what the agent of `{brought}` (incarnation {incarnation}) says of \
         it is not taken"
    )]
    NotItsAgent {
        /// The run.
        run: RunId,
        /// The process.
        process: u32,
        /// Where it runs.
        placed: NodeId,
        /// Whose agent brought the report.
        brought: NodeId,
        /// That agent's incarnation.
        incarnation: String,
    },
    /// Another agent has this node's name, and is there.
    #[error(
        "node `{node}` is taken: its agent runs on host `{host}`, and another one on host `{other}` asks for the name; give one of \
         them another name (`worker --name`), or end the first"
    )]
    NodeTaken {
        /// The name.
        node: NodeId,
        /// Host of the agent that has it.
        host: String,
        /// Host of the one that asks.
        other: String,
    },
    /// A node that is there cannot be forgotten.
    #[error("node `{node}` is there ({state}): end its worker first")]
    NodeThere {
        /// The node.
        node: NodeId,
        /// Its presence: `alive`, `detached` or `leaving`.
        state: String,
    },
    /// A node whose fences would be forgotten with it.
    #[error("devices of node `{0}` are fenced, which would be forgotten with it: `coord unfence {0}` first")]
    NodeFenced(NodeId),
    /// No such node.
    #[error("there is no node `{0}`")]
    NoNode(NodeId),
    /// A replay that cannot be.
    #[error("run `{run}` cannot be replayed: {reason}")]
    Replay {
        /// The run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// Tags or a note that are too long, or none.
    #[error("{0}")]
    Annotation(String),
    /// Data that the checkpoint's job has not.
    #[error("the job of the checkpoint has no data file `{0}`")]
    NoData(String),
    /// No such node, or it has no such device.
    #[error("there is no {0}")]
    NoDevice(String),
    /// The resume step is at or past the end of the job.
    #[error("checkpoint `{checkpoint}` is at step {step}, the job's last: nothing is left to train")]
    NothingLeft {
        /// The checkpoint.
        checkpoint: String,
        /// Its step.
        step: u64,
    },
    /// A request id that made another run already.
    #[error("request `{request}` made run `{run}`, which is another one: use a new request id for each run")]
    RequestTaken {
        /// The request.
        request: String,
        /// The run that it made.
        run: RunId,
    },
    /// More nodes than a coordinator keeps.
    #[error("{0} nodes are known, as many as a coordinator keeps: `coord node remove NAME` forgets one that is gone")]
    TooManyNodes(usize),
    /// A request id that another command had, which made no run.
    #[error("request `{0}` was another command: use a new request id for each")]
    RequestUsed(String),
}

/// What must be done beside the state, as part of the same durable write.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Store a report block under (run, log index).
    AppendBlock {
        /// The run.
        run: RunId,
        /// The process that said it.
        process: u32,
        /// The encoded `ReportBlock`.
        bytes: Vec<u8>,
    },
    /// Keep a run that leaves the state.
    Archive(ToArchive),
    /// The run was rolled back: of all blocks before this log index, steps after `step` are void.
    Rewind {
        /// The run.
        run: RunId,
        /// Steps that remain.
        step: u64,
    },
}

/// What is kept of a run that leaves the state.
#[derive(Clone, Debug, PartialEq)]
pub struct ToArchive {
    /// The run.
    pub run: RunId,
    /// Index of the log entry that created it: its place in lists.
    pub number: u64,
    /// Its encoded row in lists, so that a list need not make the run again.
    pub for_lists: Vec<u8>,
    /// All of its rows in the state, by key and encoded.
    pub rows: Vec<(String, Vec<u8>)>,
}
