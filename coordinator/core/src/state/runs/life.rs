//! Creation, change of generation, and end of a run.

use lockstep_common::RunId;

use super::run::Run;
use super::status::Status;
use crate::outcome::{Effect, Outcome};
use crate::state::cluster::ClusterState;
use crate::state::row_key::RowKey;

impl ClusterState {
    /// Adds a new run to the queue, and places it if possible.
    pub(crate) fn create(&mut self, run: Run) -> Outcome {
        let id = run.id().clone();
        let rows = [RowKey::Submission, RowKey::Run, RowKey::Progress, RowKey::Measured];
        self.changed.extend(rows.map(|row| row(id.clone())));
        self.add_run(run);
        self.place_queued();
        Outcome::Run(id)
    }

    /// Ends a run and frees its devices. Its written checkpoints will still be opened.
    pub(crate) fn end_run(&mut self, at_ms: u64, id: &RunId, status: Status) {
        self.owe_written(id);
        if let Some(run) = self.run_mut(id) {
            run.end(at_ms, status);
        }
        self.place_queued();
    }

    /// Ends the current generation. The next one starts from the last committed checkpoint, after the written checkpoints were opened.
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
