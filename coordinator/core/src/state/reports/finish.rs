//! The end of a run: all its processes have completed the last step.

use lockstep_common::{Digest, RunId};

use crate::state::cluster::ClusterState;
use crate::state::runs::{ProcessPhase, ProcessState, Status};

impl ClusterState {
    pub(super) fn finished(&mut self, at_ms: u64, id: &RunId, process: u32, step: u64, digest: &Digest) {
        if let Some(placed) = self.process_mut(id, process) {
            placed.phase = ProcessPhase::Finished { state: *digest, exited: false };
        }
        let Some(run) = self.runs.get(id) else { return };
        let states = run.state.placement.iter().filter_map(|(&process, placed)| match placed.phase {
            ProcessPhase::Finished { state, .. } => Some((process, state)),
            ProcessPhase::Assigned | ProcessPhase::Ready => None,
        });
        let states: Vec<(u32, Digest)> = states.collect();
        if let Some((other, state)) = states.iter().find(|(_, state)| state != digest) {
            let (a, b) = (run.name_of(*other), run.name_of(process));
            let reason = format!("replicas differ at the end: {a} has state `{state}`, but {b} has `{digest}`");
            if run.is_written(step)
                && let Some(run) = self.run_mut(id)
            {
                // This checkpoint contains shares of different states.
                run.checkpoint_failed(at_ms, step, &reason);
                self.drop_shares(id, |of| of == step);
            }
            return self.fail(at_ms, id, None, &reason);
        }
        self.conclude(at_ms, id);
    }

    /// Ends a run if all its processes have finished and its last checkpoint is committed or given up. The checkpoint must contain the
    /// state that the processes ended with (I12). A replay writes no checkpoint.
    pub(crate) fn conclude(&mut self, at_ms: u64, id: &RunId) {
        let Some(run) = self.runs.get(id) else { return };
        let state = |placed: &ProcessState| match placed.phase {
            ProcessPhase::Finished { state, .. } => Some(state),
            ProcessPhase::Assigned | ProcessPhase::Ready => None,
        };
        let states: Option<Vec<Digest>> = run.state.placement.values().map(state).collect();
        let Some(&state) = states.as_ref().and_then(|states| states.first()) else { return };
        let saved = run.checkpoints.get(&run.last_step());
        if run.submission.replay.is_some() || saved.is_some_and(|saved| saved.state == state) {
            self.end_run(at_ms, id, Status::Finished { state });
        } else if let Some(saved) = saved {
            let (checkpoint, held) = (saved.id.short(), saved.state);
            let reason = format!(
                "silent corruption: the last checkpoint `{checkpoint}` has state `{held}`, but the processes ended with `{state}`"
            );
            self.fail(at_ms, id, None, &reason);
        } else if !run.is_written(run.last_step()) {
            let last = run.last_step();
            let failed = run.state.failed_checkpoints.iter().rfind(|failed| failed.step == last);
            let reason =
                failed.map_or("its processes did not write the last checkpoint", |failed| &failed.reason).to_owned();
            if failed.is_none()
                && let Some(run) = self.run_mut(id)
            {
                run.checkpoint_failed(at_ms, last, &reason);
            }
            self.end_run(at_ms, id, Status::Unsaved { state, reason });
        }
    }
}
