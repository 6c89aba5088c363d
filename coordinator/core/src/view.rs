//! The state as clients see it: the documents that the API answers and `--json` prints.
//!
//! Secrets are not in them. Numbers that are compared bit for bit come as a number and as bits.

use std::collections::BTreeMap;
use std::fmt;

use lockstep_common::manifest::{CodeVersion, DataFile, Override};
use lockstep_common::{Digest, NodeId, RunId};
use serde::{Deserialize, Serialize};

use crate::state::{
    Checkpoint, ClusterState, Corruption, Device, FailedCheckpoint, Fence, Found, Node, Presence, ProcessExit,
    ProcessPhase, ProcessState, Run, Status, StatusKind,
};

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// Index of the log entry that created it: the greater, the newer.
    #[serde(default)]
    pub number: u64,
    /// The job's name.
    pub name: String,
    /// Where it stands.
    pub status: StatusKind,
    /// Why it is queued, failed or not saved.
    pub reason: Option<String>,
    /// Steps completed.
    pub step: u64,
    /// Steps to complete.
    pub steps: u64,
    /// Logical ranks.
    pub ranks: u32,
    /// Processes of the current generation; 0 while it is queued.
    pub processes: u32,
    /// The current generation.
    pub generation: u64,
    /// The loss of the last reported step.
    pub loss: Option<Number>,
    /// The gradient norm of the last reported step.
    pub grad_norm: Option<Number>,
    /// Samples a second, over the last block of reports.
    pub samples_per_second: Option<f64>,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
    /// When all processes were ready for the first time.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// The checkpoint that it was resumed from.
    pub parent: Option<Digest>,
    /// What was otherwise than in a checkpoint that it comes from, and was accepted; oldest first.
    pub overrides: Vec<Override>,
    /// The run that it repeats a part of.
    pub replay_of: Option<RunId>,
    /// Digest of the final state, once it is finished: equal states have equal digests.
    pub final_state_digest: Option<Digest>,
    /// Written on it by people.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Alarms that stand: differences between replicas; whoever keeps the run's numbers adds theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<u64>,
    /// The newest checkpoint that failed, if none was committed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_failed: Option<FailedCheckpoint>,
}

/// A run in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// What a list shows of it.
    pub row: RunRow,
    /// Digest of the job.
    pub job_digest: Digest,
    /// The job in canonical form.
    pub job: String,
    /// Where the job's relative paths begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The data.
    pub data: Vec<DataFile>,
    /// What changes bits, as the current generation measured it.
    pub numerics: BTreeMap<String, String>,
    /// What process 0 of the current generation runs on.
    pub environment: BTreeMap<String, String>,
    /// The checkpoint that this generation began from.
    pub restored_from: Option<Digest>,
    /// When a process was last heard of.
    pub heard_at_ms: u64,
    /// Generations before this one.
    pub restarts: u32,
    /// Processes that crashed since the last checkpoint.
    #[serde(default)]
    pub crashes: u32,
    /// Processes that gave up since then for a reason that may pass.
    #[serde(default)]
    pub transients: u32,
    /// The last process that ended too early.
    pub last_exit: Option<ProcessExit>,
    /// The current generation's processes; of a run that has ended, the last one's.
    pub placement: Vec<ProcessView>,
    /// Committed checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointView>,
    /// Checkpoints that could not be made, oldest first.
    pub failed_checkpoints: Vec<FailedCheckpoint>,
    /// Replicas that were found to differ, oldest first.
    pub corruptions: Vec<Corruption>,
    /// Written on it by people; empty if there is none.
    #[serde(default)]
    pub note: String,
}

/// A floating-point number and its bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// The number; absent if it is not finite.
    pub value: Option<f64>,
    /// The bits of the f64: 16 hexadecimal characters.
    pub bits: String,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its agent starts it, or it loads.
    Assigned,
    /// It trains, or waits for the others.
    Ready,
    /// It made its last step.
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

/// A process of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Its number.
    pub process: u32,
    /// Its node.
    pub node: NodeId,
    /// Its device.
    pub device: String,
    /// How far it is.
    pub phase: Phase,
    /// Where its exchange listens.
    pub address: Option<String>,
}

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Its id: the digest of its manifest.
    pub id: Digest,
    /// The run that made it.
    pub run: RunId,
    /// The run's name.
    pub name: String,
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Milliseconds since the epoch.
    pub committed_at_ms: u64,
    /// Digest of the state in it.
    pub state_digest: Digest,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub id: NodeId,
    /// Host name.
    pub host: String,
    /// Whether its agent is connected.
    pub alive: bool,
    /// Whether it is there.
    pub state: Presence,
    /// Since when: milliseconds since the epoch.
    pub changed_at_ms: u64,
    /// Its devices.
    pub devices: Vec<DeviceView>,
}

/// A device of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// `cpu` or `cuda:N`.
    pub name: String,
    /// What it is.
    pub model: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// The run that has a process on it.
    pub run: Option<RunId>,
    /// That process.
    pub process: Option<u32>,
    /// Set if it gets no process.
    pub fenced: Option<Fence>,
}

impl ClusterState {
    /// Runs that are not in the archive, newest last.
    pub fn run_rows(&self) -> Vec<RunRow> {
        self.runs().into_iter().map(RunRow::of).collect()
    }

    /// All nodes, by name.
    pub fn node_views(&self) -> Vec<NodeView> {
        self.nodes().map(|node| NodeView::of(self, node)).collect()
    }

    /// All committed checkpoints, run by run, oldest first.
    pub fn checkpoint_views(&self) -> Vec<CheckpointView> {
        let runs = self.listed(u64::MAX, usize::MAX);
        runs.iter().filter_map(|(_, id)| self.found(id)).flat_map(CheckpointView::of_run).collect()
    }
}

impl Number {
    /// The number with these bits.
    pub fn from_bits(bits: u64) -> Self {
        let value = f64::from_bits(bits);
        Self { value: value.is_finite().then_some(value), bits: format!("{bits:016x}") }
    }
}

impl RunRow {
    /// The row of `run`.
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
    /// All of `run`.
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
    /// All committed checkpoints of `run`, oldest first.
    pub fn all_of(run: &Run) -> Vec<Self> {
        Self::of_run(Found::Here(run))
    }

    /// The same of a run that may be in the archive.
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
    /// `node`, and who is on its devices.
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
