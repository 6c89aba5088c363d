//! Desired state: the processes that a node should run. Agents start and stop processes until they match it.
//!
//! The desired state is small: the indices of processes, and the outcome of the run's last checkpoint. Everything else is in the
//! [`Assignment`], which a node requests once per generation.

use std::collections::BTreeMap;

use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{NodeId, RunId};

use crate::state::{ProcessPhase, Replay, Restore, Run, Status};

/// The processes of one run that a node should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredRun {
    /// Generation of all `processes`.
    pub generation: u64,
    /// Device of each process, by process index: `cpu` or `cuda:N`.
    pub processes: BTreeMap<u32, String>,
    /// Outcome of the run's last checkpoint.
    pub save: Save,
}

/// Outcome of a run's last checkpoint, for processes that have completed the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Save {
    /// The checkpoint is committed: the processes may end.
    pub committed: bool,
    /// Number of times that the shares were rejected. When it grows, the processes write their shares again.
    pub attempt: u32,
    /// A process has finished without a share: the others need not retry.
    pub given_up: bool,
}

/// Everything that the processes of a generation need to start. It does not change during the generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The run to train.
    pub run: RunId,
    /// The run's generation at this time; messages of other generations are rejected.
    pub generation: u64,
    /// Number of processes of the generation.
    pub processes: u32,
    /// The job in canonical form.
    pub job: String,
    /// Directory that the job's relative paths begin at.
    pub base_dir: String,
    /// Version of the code; programs are built from it.
    pub code: Option<CodeVersion>,
    /// Files and directories of the data, with their digests.
    pub data: Vec<DataFile>,
    /// The checkpoint to start from; `None`: from step 0.
    pub restore: Option<Restore>,
    /// Secret by which the processes of this generation authenticate each other.
    pub secret: [u8; 32],
    /// Set if the run re-runs steps of another run.
    pub replay: Option<Replay>,
    /// Steps after which the processes report the state's fingerprint, to decide open corruptions.
    pub judge_at: Vec<u64>,
}

/// The processes of `run` that each node should run. Nodes without a process are not in the map.
///
/// A finished process stays in the desired state until its agent reports its exit, because it ends by itself.
pub fn desired(run: &Run) -> BTreeMap<NodeId, DesiredRun> {
    let mut nodes: BTreeMap<NodeId, DesiredRun> = BTreeMap::new();
    if matches!(run.state.status, Status::Queued { .. } | Status::Failed { .. } | Status::Cancelled) {
        return nodes;
    }
    let save = Save { committed: run.is_saved(), attempt: run.state.save_attempt, given_up: run.save_is_given_up() };
    for (&process, placed) in &run.state.placement {
        if !matches!(placed.phase, ProcessPhase::Finished { exited: true, .. }) {
            let on_node = nodes.entry(placed.node.clone()).or_insert_with(|| DesiredRun {
                generation: run.state.generation,
                processes: BTreeMap::new(),
                save,
            });
            on_node.processes.insert(process, placed.device_name.clone());
        }
    }
    nodes
}

/// The addresses of all processes of the current generation, by process index; `None` until all are ready.
pub fn peers(run: &Run) -> Option<Vec<String>> {
    let addresses: Option<Vec<String>> = run.state.placement.values().map(|placed| placed.address.clone()).collect();
    addresses.filter(|addresses| !addresses.is_empty())
}

/// The assignment of the current generation of `run`.
pub fn assignment(run: &Run) -> Assignment {
    Assignment {
        run: run.id().clone(),
        generation: run.state.generation,
        processes: run.state.placement.len() as u32,
        job: run.submission.job.clone(),
        base_dir: run.submission.base_dir.clone(),
        code: run.submission.code.clone(),
        data: run.submission.data.clone(),
        restore: run.state.restore.clone(),
        secret: run.generation_secret(),
        replay: run.submission.replay.clone(),
        judge_at: run.open_corruptions().map(|corruption| corruption.step).collect(),
    }
}
