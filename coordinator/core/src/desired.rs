//! Desired state: which processes a node should run. Agents make it so (level-triggered).

use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{NodeId, RunId};

use crate::command::Replay;
use crate::state::{ClusterState, ProcessPhase, ProcessState, Restore, Run, Status};

/// A process that a node should run, and all that it needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Of which run.
    pub run: RunId,
    /// Of which generation.
    pub generation: u64,
    /// Which process.
    pub process: u32,
    /// Of how many.
    pub processes: u32,
    /// Its device: `cpu` or `cuda:N`.
    pub device: String,
    /// The job in canonical form.
    pub job: String,
    /// Where relative paths of the job begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The data.
    pub data: Vec<DataFile>,
    /// The checkpoint to begin from; none: from the start.
    pub restore: Option<Restore>,
    /// Known to the processes of this generation only.
    pub secret: [u8; 32],
    /// Every process's address, by number; empty until all are ready.
    pub peers: Vec<String>,
    /// Set if the run repeats a part of another one.
    pub replay: Option<Replay>,
    /// Steps after which what all tensors come to decides which of several earlier processes was right.
    pub judge_at: Vec<u64>,
    /// What became of the run's last checkpoint.
    pub save: Save,
}

/// What became of a run's last checkpoint, for the processes that have made the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Save {
    /// It is committed.
    pub committed: bool,
    /// Times that what the processes wrote was rejected: they write it again.
    pub attempt: u32,
    /// Another process has given it up.
    pub given_up: bool,
}

/// All processes that `node` should run, by run and number; what is not named should not run.
///
/// A process that has finished is named until its agent says that it is gone: it ends by itself.
pub fn desired(state: &ClusterState, node: &NodeId) -> Vec<Assigned> {
    let mut assigned = Vec::new();
    for run in state.runs() {
        let status = &run.state.status;
        if matches!(status, Status::Queued { .. } | Status::Failed { .. } | Status::Cancelled) {
            continue;
        }
        for (&process, placed) in &run.state.placement {
            let gone = matches!(placed.phase, ProcessPhase::Finished { exited: true, .. });
            if placed.node == *node && !gone {
                assigned.push(assignment(run, process, placed));
            }
        }
    }
    assigned
}

fn assignment(run: &Run, process: u32, placed: &ProcessState) -> Assigned {
    let addresses = run.state.placement.values().map(|placed| placed.address.clone());
    Assigned {
        run: run.id().clone(),
        generation: run.state.generation,
        process,
        processes: run.state.placement.len() as u32,
        device: placed.device_name.clone(),
        job: run.submission.job.clone(),
        base_dir: run.submission.base_dir.clone(),
        code: run.submission.code.clone(),
        data: run.submission.data.clone(),
        restore: run.state.restore.clone(),
        secret: run.generation_secret(),
        peers: addresses.collect::<Option<Vec<String>>>().unwrap_or_default(),
        replay: run.submission.replay.clone(),
        judge_at: run.open_corruptions().map(|corruption| corruption.step).collect(),
        save: Save { committed: run.is_saved(), attempt: run.state.save_attempt, given_up: run.save_is_given_up() },
    }
}
