//! The state as clients see it: documents for the API, the page and `--json`.
//!
//! Documents contain no secrets. A number that is compared bit for bit is given as a number and as its bits.

use std::collections::BTreeMap;
use std::fmt;

use lockstep_common::manifest::{CodeVersion, DataFile, Override};
use lockstep_common::{Digest, NodeId, RunId};
use serde::{Deserialize, Serialize};

use crate::state::{
    Checkpoint, ClusterState, Corruption, Device, FailedCheckpoint, Fence, Found, Node, Presence, ProcessExit,
    ProcessPhase, ProcessState, Run, Status, StatusKind,
};

/// A run as a row in a list. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of some fields say everything; they are the keys of the JSON document")]
pub struct RunRow {
    pub id: RunId,
    /// Index of the log entry that created the run. Newer runs have greater numbers.
    #[serde(default)]
    pub number: u64,
    /// `name` of the job; several runs may have the same one.
    pub name: String,
    pub status: StatusKind,
    /// Why the run is queued, starting, failed or unsaved.
    pub reason: Option<String>,
    /// Number of completed steps.
    pub step: u64,
    /// Number of steps at the end of the run.
    pub steps: u64,
    /// Number of logical ranks.
    pub ranks: u32,
    /// Number of processes of the current generation; 0 while the run is queued.
    pub processes: u32,
    pub generation: u64,
    /// Loss of the last reported step.
    pub loss: Option<Number>,
    /// Gradient norm of the last reported step.
    pub grad_norm: Option<Number>,
    /// Mean over the last block of reports.
    pub samples_per_second: Option<f64>,
    pub created_at_ms: u64,
    /// The first time at which all processes were ready.
    pub started_at_ms: Option<u64>,
    pub ended_at_ms: Option<u64>,
    /// The checkpoint that the run was resumed from.
    pub parent: Option<Digest>,
    /// Accepted differences from the checkpoints that the run descends from, oldest first.
    pub overrides: Vec<Override>,
    /// The run whose steps this run re-runs.
    pub replay_of: Option<RunId>,
    /// Digest of the final state; `None` unless the run is finished or unsaved. Equal states have equal digests.
    pub final_state_digest: Option<Digest>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// Number of open alarms: corruptions without a verdict, and a failed checkpoint. The coordinator adds the alarms that it found in
    /// the run's numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<u64>,
    /// The newest failed checkpoint; `None` if a checkpoint was committed after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_failed: Option<FailedCheckpoint>,
}

/// A run with all details.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// The run's row in lists.
    pub row: RunRow,
    /// Digest of `job`.
    pub job_digest: Digest,
    /// The job in canonical form.
    pub job: String,
    /// Directory that the job's relative paths begin at.
    pub base_dir: String,
    /// Version of the code; `None` if the job file was not in a Git work tree.
    pub code: Option<CodeVersion>,
    /// Files and directories of the data, with their digests.
    pub data: Vec<DataFile>,
    /// Properties that are known to change bits, as measured by the current generation.
    pub numerics: BTreeMap<String, String>,
    /// Machine and software of process 0 of the current generation.
    pub environment: BTreeMap<String, String>,
    /// The checkpoint that the current generation started from.
    pub restored_from: Option<Digest>,
    /// Time of the last report of a process, in milliseconds since the Unix epoch.
    pub heard_at_ms: u64,
    /// Number of earlier generations.
    pub restarts: u32,
    /// Number of processes that crashed since the last checkpoint.
    #[serde(default)]
    pub crashes: u32,
    /// Number of processes that failed with a transient error since the last checkpoint.
    #[serde(default)]
    pub transients: u32,
    /// The last process that ended before it finished.
    pub last_exit: Option<ProcessExit>,
    /// The processes of the current generation, or if the run has ended, of the last one.
    pub placement: Vec<ProcessView>,
    /// Committed checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointView>,
    /// Failed checkpoints, oldest first; the newest 100.
    pub failed_checkpoints: Vec<FailedCheckpoint>,
    /// Corruptions, oldest first, without their trails.
    pub corruptions: Vec<Corruption>,
    /// Note that users wrote; empty if there is none.
    #[serde(default)]
    pub note: String,
}

/// A floating-point number and its bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// `None` if the number is not finite, because JSON has no such numbers.
    pub value: Option<f64>,
    /// The bits of the `f64`, as 16 hexadecimal digits.
    pub bits: String,
}

/// Progress of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The agent is starting the process, or the process is loading model and data.
    Assigned,
    /// The process trains, or waits for the other processes.
    Ready,
    /// The process has completed the run's last step.
    Finished,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Assigned => "assigned",
            Self::Ready => "ready",
            Self::Finished => "finished",
        })
    }
}

/// A process of a run, with its placement and progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Process index, from 0.
    pub process: u32,
    /// The node that runs the process.
    pub node: NodeId,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Progress of the process.
    pub phase: Phase,
    /// Address at which other processes connect, as `HOST:PORT`; `None` until the process is ready.
    pub address: Option<String>,
}

/// A committed checkpoint, with its run and state digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Digest of the manifest.
    pub id: Digest,
    /// The run that wrote the checkpoint.
    pub run: RunId,
    /// `name` of that run's job.
    pub name: String,
    /// Number of completed steps.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Time of the commit, in milliseconds since the Unix epoch.
    pub committed_at_ms: u64,
    /// Digest of the state in the checkpoint.
    pub state_digest: Digest,
}

/// A node, with its devices and their occupants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Name of the node: `worker --name`.
    pub id: NodeId,
    /// Host name of the machine.
    pub host: String,
    /// Whether `state` is [`Presence::Alive`].
    pub alive: bool,
    /// Whether the agent is connected, and otherwise why not.
    pub state: Presence,
    /// Time of the last change of `state`, in milliseconds since the Unix epoch.
    pub changed_at_ms: u64,
    /// Devices in the order of the agent; a node has one `cpu` per slot.
    pub devices: Vec<DeviceView>,
}

/// A device of a node, with its occupant and fence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// `cpu` or `cuda:N`.
    pub name: String,
    /// Model name of the processor or GPU.
    pub model: String,
    /// Total memory of the device.
    pub memory_bytes: u64,
    /// The run that occupies the device.
    pub run: Option<RunId>,
    /// Index of the process on the device.
    pub process: Option<u32>,
    /// The fence; a fenced device gets no process.
    pub fenced: Option<Fence>,
}

impl ClusterState {
    /// Runs that are not archived, in the order of submission.
    pub fn run_rows(&self) -> Vec<RunRow> {
        self.runs().into_iter().map(RunRow::of).collect()
    }

    /// All nodes, sorted by name.
    pub fn node_views(&self) -> Vec<NodeView> {
        self.nodes().map(|node| NodeView::of(self, node)).collect()
    }

    /// All committed checkpoints, also of archived runs: in the order of the runs' submission, then of steps.
    pub fn checkpoint_views(&self) -> Vec<CheckpointView> {
        let runs = self.listed(u64::MAX, usize::MAX);
        runs.iter().filter_map(|(_, id)| self.found(id)).flat_map(CheckpointView::of_run).collect()
    }
}

impl Number {
    /// The `f64` with the bits `bits`.
    pub fn from_bits(bits: u64) -> Self {
        let value = f64::from_bits(bits);
        Self { value: value.is_finite().then_some(value), bits: format!("{bits:016x}") }
    }
}

impl RunRow {
    /// Makes the row of `run`.
    pub fn of(run: &Run) -> Self {
        let state = &run.state;
        let progress = state.progress.as_ref();
        let final_state_digest = match state.status {
            Status::Finished { state } | Status::Unsaved { state, .. } => Some(state),
            _ => None,
        };
        Self {
            id: run.id().clone(),
            number: run.submission.number,
            name: run.job.name.clone(),
            status: state.status.kind(),
            reason: state.status.reason().map(str::to_owned).or_else(|| run.waits_for()),
            step: run.step(),
            steps: run.last_step(),
            ranks: run.job.ranks,
            processes: state.placement.len() as u32,
            generation: state.generation,
            loss: progress.map(|progress| Number::from_bits(progress.loss)),
            grad_norm: progress.map(|progress| Number::from_bits(progress.grad_norm)),
            samples_per_second: progress.map(|progress| progress.samples_per_second).filter(|rate| rate.is_finite()),
            created_at_ms: run.submission.created_at_ms,
            started_at_ms: state.started_at_ms,
            ended_at_ms: state.ended_at_ms,
            parent: run.submission.parent,
            overrides: run.state.measured.overrides.clone(),
            replay_of: run.submission.replay.as_ref().map(|replay| replay.of.clone()),
            final_state_digest,
            tags: state.tags.iter().cloned().collect(),
            alarms: Some(run.open_corruptions().count() as u64 + u64::from(run.standing_failure().is_some())),
            checkpoint_failed: run.standing_failure().cloned(),
        }
    }
}

impl RunView {
    /// Makes the view of `run`.
    pub fn of(run: &Run) -> Self {
        let process = |(&process, placed): (&u32, &ProcessState)| ProcessView {
            process,
            node: placed.node.clone(),
            device: placed.device_name.clone(),
            phase: match placed.phase {
                ProcessPhase::Assigned => Phase::Assigned,
                ProcessPhase::Ready => Phase::Ready,
                ProcessPhase::Finished { .. } => Phase::Finished,
            },
            address: placed.address.clone(),
        };
        Self {
            row: RunRow::of(run),
            job_digest: run.job.digest(),
            job: run.submission.job.clone(),
            base_dir: run.submission.base_dir.clone(),
            code: run.submission.code.clone(),
            data: run.submission.data.clone(),
            numerics: run.state.measured.numerics.as_ref().map(|measured| measured.values.clone()).unwrap_or_default(),
            environment: run.state.measured.environment.clone(),
            restored_from: run.state.restore.as_ref().map(|restore| restore.checkpoint),
            heard_at_ms: run.state.heard_at_ms,
            restarts: run.state.restarts,
            crashes: run.state.exits,
            transients: run.state.transients,
            last_exit: run.state.last_exit.clone(),
            placement: run.state.placement.iter().map(process).collect(),
            checkpoints: CheckpointView::all_of(run),
            failed_checkpoints: run.state.failed_checkpoints.clone(),
            corruptions: run
                .state
                .corruptions
                .iter()
                .cloned()
                .map(|found| Corruption { trail: Vec::new(), ..found })
                .collect(),
            note: run.state.note.clone(),
        }
    }
}

impl CheckpointView {
    /// Committed checkpoints of `run`, oldest first.
    pub fn all_of(run: &Run) -> Vec<Self> {
        Self::of_run(Found::Here(run))
    }

    /// Committed checkpoints of a run that may be archived, oldest first.
    pub fn of_run(run: Found<'_>) -> Vec<Self> {
        let one = |name: &str, made: &Checkpoint| Self::of(run.id(), name, made);
        match run {
            Found::Here(run) => run.checkpoints.values().map(|made| one(&run.job.name, made)).collect(),
            Found::Archived(_, run) => run.checkpoints.iter().map(|made| one(&run.name, made)).collect(),
        }
    }

    fn of(run: &RunId, name: &str, made: &Checkpoint) -> Self {
        Self {
            id: made.id,
            run: run.clone(),
            name: name.to_owned(),
            step: made.step,
            epoch: made.epoch,
            committed_at_ms: made.committed_at_ms,
            state_digest: made.state,
        }
    }
}

impl NodeView {
    /// Makes the view of `node`, with the runs that occupy its devices.
    pub fn of(state: &ClusterState, node: &Node) -> Self {
        let device = |(index, device): (u32, &Device)| {
            let occupant = state.occupant(&node.id, index);
            DeviceView {
                name: device.name.clone(),
                model: device.model.clone(),
                memory_bytes: device.memory_bytes,
                run: occupant.map(|(run, _)| run.id().clone()),
                process: occupant.map(|(_, process)| process),
                fenced: node.fences.get(&device.name).cloned(),
            }
        };
        Self {
            id: node.id.clone(),
            host: node.host.clone(),
            alive: node.presence == Presence::Alive,
            state: node.presence,
            changed_at_ms: node.changed_at_ms,
            devices: (0..).zip(&node.devices).map(device).collect(),
        }
    }
}
