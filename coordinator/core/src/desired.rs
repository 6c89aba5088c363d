//! Desired state: which processes a node should run. Agents make it so (level-triggered).
//!
//! A node is told little: names of processes, and what became of the run's last checkpoint. All else that they need is an [`Assignment`],
//! which a node asks for once in a generation.

use std::collections::BTreeMap;

use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{NodeId, RunId};

use crate::state::{ProcessPhase, Replay, Restore, Run, Status};

/// What a node should run of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredRun {
    /// Of which generation.
    pub generation: u64,
    /// The device of each of the node's processes, by number: `cpu` or `cuda:N`.
    pub processes: BTreeMap<u32, String>,
    /// What became of the run's last checkpoint.
    pub save: Save,
}

/// What became of a run's last checkpoint, for the processes that have made the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Save {
    /// Its manifest is written and in the log: the processes may end.
    pub committed: bool,
    /// Times that what the processes wrote was rejected: they write it again.
    pub attempt: u32,
    /// Another process has given it up.
    pub given_up: bool,
}

/// All that the processes of a generation need to know before they are ready. It stays the same for the generation's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Of which run.
    pub run: RunId,
    /// Of which generation.
    pub generation: u64,
    /// How many processes it has.
    pub processes: u32,
    /// The job in canonical form.
    pub job: String,
    /// Where relative paths of the job begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The files that it trains on, with their digests.
    pub data: Vec<DataFile>,
    /// The checkpoint to begin from; none: from the start.
    pub restore: Option<Restore>,
    /// Known to the processes of this generation only.
    pub secret: [u8; 32],
    /// Set if the run repeats a part of another one.
    pub replay: Option<Replay>,
    /// Steps after which what all tensors come to decides which of several earlier processes was right.
    pub judge_at: Vec<u64>,
}

/// What each node should run of `run`; other nodes nothing.
///
/// A process that has finished is named until its agent says that it is gone: it ends by itself.
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

/// The address of every process of the run's generation, by number, once all are ready.
pub fn peers(run: &Run) -> Option<Vec<String>> {
    let addresses: Option<Vec<String>> = run.state.placement.values().map(|placed| placed.address.clone()).collect();
    addresses.filter(|addresses| !addresses.is_empty())
}

/// The assignment of the run's generation.
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
