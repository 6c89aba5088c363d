//! A run, with accessors for its current generation.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::Piece;
use lockstep_common::{Digest, Domain, NodeId, RunId};

use super::checkpoint::Checkpoint;
use super::owed::Owed;
use super::process::ProcessPhase;
use super::run_state::{Measured, RunState};
use super::status::Status;
use super::submission::Submission;

/// A run that is not archived.
#[derive(Clone, Debug)]
pub struct Run {
    /// Immutable properties.
    pub submission: Submission,
    /// The job, parsed from `submission.job`.
    pub job: JobSpec,
    /// Mutable properties.
    pub state: RunState,
    /// Committed checkpoints, by step.
    pub checkpoints: BTreeMap<u64, Checkpoint>,
    /// Blobs of the current generation's shares, by step and process, until their checkpoints are committed or fail.
    pub shares: BTreeMap<(u64, u32), Piece>,
    /// Written checkpoints of ended generations, by step, until the leader has opened them. The run is not placed before.
    pub owed: BTreeMap<u64, Owed>,
}

impl Run {
    /// Creates a run in its first generation, which is queued.
    pub(crate) fn new(submission: Submission, job: JobSpec) -> Self {
        let state = RunState {
            status: Status::Queued { reason: String::new() },
            generation: 1,
            kind: None,
            placement: BTreeMap::new(),
            progress: None,
            heard_at_ms: submission.created_at_ms,
            started_at_ms: None,
            ended_at_ms: None,
            restore: None,
            measured: Measured::default(),
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
            unconfirmed: Vec::new(),
            failed_on: BTreeMap::new(),
        };
        Self { submission, job, state, checkpoints: BTreeMap::new(), shares: BTreeMap::new(), owed: BTreeMap::new() }
    }

    /// The id of the run.
    pub fn id(&self) -> &RunId {
        &self.submission.id
    }

    /// The reason, for users, why the current generation does not train yet, or is about to end. `None` if it trains or is queued.
    pub fn waits_for(&self) -> Option<String> {
        if let Some((_, doubt)) = self.unconfirmed_doubt() {
            return Some(doubt);
        }
        let late: Vec<u32> = match self.state.status {
            Status::Starting => {
                let placed = self.state.placement.iter();
                placed
                    .filter(|(_, placed)| placed.phase == ProcessPhase::Assigned)
                    .map(|(process, _)| *process)
                    .collect()
            }
            _ => return None,
        };
        let first = self.name_of(*late.first()?);
        Some(match late.len() - 1 {
            0 => format!("waits for {first} to be ready"),
            more => format!("waits for {first} and {more} more to be ready"),
        })
    }

    /// Number of steps at the end of the run: `steps` of the job, or the last step of the replay.
    pub fn last_step(&self) -> u64 {
        self.submission.replay.as_ref().map_or(self.job.steps, |replay| replay.until)
    }

    /// Number of completed and reported steps that were not rolled back.
    pub fn step(&self) -> u64 {
        let restored = self.state.restore.as_ref().map_or(0, |restore| restore.step);
        self.state.progress.as_ref().map_or(restored, |progress| progress.step)
    }

    /// Secret by which the processes of the current generation authenticate each other.
    pub fn generation_secret(&self) -> [u8; 32] {
        let mut hasher = Domain::Secret.hasher();
        hasher.update(&self.submission.secret).update(&self.state.generation.to_le_bytes());
        *Digest::of(&hasher).as_bytes()
    }

    /// Name of a process in messages, such as ``process 1 on `node-b` ``.
    pub(crate) fn name_of(&self, process: u32) -> String {
        match self.state.placement.get(&process) {
            Some(placed) => format!("process {process} on `{}`", placed.node),
            None => format!("process {process}"),
        }
    }

    /// The node of a process of the current generation; `None` if there is no such process.
    pub(crate) fn node_of(&self, process: u32) -> Option<&NodeId> {
        self.state.placement.get(&process).map(|placed| &placed.node)
    }

    /// Ends the run. Its devices are free afterwards, but the placement stays visible to users.
    pub(crate) fn end(&mut self, at_ms: u64, status: Status) {
        self.state.status = status;
        self.state.ended_at_ms = Some(at_ms);
    }

    /// Starts the next generation, which is queued. Reports of earlier generations change nothing from now on.
    pub(crate) fn next_generation(&mut self) {
        let restore = self.last_checkpoint();
        let state = &mut self.state;
        state.restore = restore;
        state.generation += 1;
        state.restarts += 1;
        state.placement.clear();
        state.progress = None;
        state.measured.numerics = None;
        state.measured.environment.clear();
        state.save_attempt = 0;
        state.unconfirmed.clear();
        state.status = Status::Queued { reason: String::new() };
    }
}
