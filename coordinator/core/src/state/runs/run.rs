//! A run, and what its current generation is.

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

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What never changes.
    pub submission: Submission,
    /// The job, parsed from `submission.job`.
    pub job: JobSpec,
    /// Where it stands.
    pub state: RunState,
    /// Committed checkpoints, by step.
    pub checkpoints: BTreeMap<u64, Checkpoint>,
    /// Shares of checkpoints that are not complete yet, by step and process; of the current generation. Each is a blob.
    pub shares: BTreeMap<(u64, u32), Piece>,
    /// Written checkpoints of a generation that has ended, by step, until the leader has opened them. No process is placed
    /// meanwhile.
    pub owed: BTreeMap<u64, Owed>,
}

impl Run {
    /// A run that nobody has placed yet.
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

    /// Its id.
    pub fn id(&self) -> &RunId {
        &self.submission.id
    }

    /// Which processes a generation waits for that has not begun, for people.
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

    /// Steps completed at its end: the job's, but for a replay.
    pub fn last_step(&self) -> u64 {
        self.submission.replay.as_ref().map_or(self.job.steps, |replay| replay.until)
    }

    /// Steps completed, as far as is known and was not rolled back.
    pub fn step(&self) -> u64 {
        let restored = self.state.restore.as_ref().map_or(0, |restore| restore.step);
        self.state.progress.as_ref().map_or(restored, |progress| progress.step)
    }

    /// The secret that the processes of the current generation prove to each other.
    pub fn generation_secret(&self) -> [u8; 32] {
        let mut hasher = Domain::Secret.hasher();
        hasher.update(&self.submission.secret).update(&self.state.generation.to_le_bytes());
        *Digest::of(&hasher).as_bytes()
    }

    /// `process 1 on node-b`, for people.
    pub(crate) fn name_of(&self, process: u32) -> String {
        match self.state.placement.get(&process) {
            Some(placed) => format!("process {process} on `{}`", placed.node),
            None => format!("process {process}"),
        }
    }

    /// The node of a process of the current generation.
    pub(crate) fn node_of(&self, process: u32) -> Option<&NodeId> {
        self.state.placement.get(&process).map(|placed| &placed.node)
    }

    /// Ends the run. The placement stays for people to see; its devices are free.
    pub(crate) fn end(&mut self, at_ms: u64, status: Status) {
        self.state.status = status;
        self.state.ended_at_ms = Some(at_ms);
    }

    /// Leaves the current generation: its processes' messages are void from now on (fencing).
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
