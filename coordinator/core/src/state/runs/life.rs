//! A run's life: it begins, goes to its next generation, and ends.

use lockstep_common::RunId;

use super::run::Run;
use super::status::Status;
use crate::outcome::{Effect, Outcome};
use crate::state::cluster::ClusterState;
use crate::state::row_key::RowKey;

impl ClusterState {
    /// Puts a new run into the queue.
    pub(crate) fn create(&mut self, run: Run) -> Outcome {
        let id = run.id().clone();
        let rows = [RowKey::Submission, RowKey::Run, RowKey::Progress, RowKey::Measured];
        self.changed.extend(rows.map(|row| row(id.clone())));
        self.add_run(run);
        self.place_queued();
        Outcome::Run(id)
    }

    /// Ends a run and gives its devices to others. Its written checkpoints are still opened.
    pub(crate) fn end_run(&mut self, at_ms: u64, id: &RunId, status: Status) {
        self.owe_written(id);
        if let Some(run) = self.run_mut(id) {
            run.end(at_ms, status);
        }
        self.place_queued();
    }

    /// Gives the current generation up; the next one begins from the last committed checkpoint, once the written ones are
    /// opened.
    pub(crate) fn leave_generation(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        self.owe_written(id);
        self.placement_changed(id);
        self.changed.extend([RowKey::Progress(id.clone()), RowKey::Measured(id.clone())]);
        let Some(run) = self.run_mut(id) else { return };
        run.next_generation();
        if run.owed.is_empty() {
            self.rewind(id, effects);
        }
    }
}
