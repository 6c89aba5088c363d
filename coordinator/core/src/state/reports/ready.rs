//! Readiness of a process: its numerics must match the other processes', and the checkpoint's or the original run's.

use std::collections::BTreeMap;

use lockstep_common::RunId;
use lockstep_common::manifest::Override;

use crate::state::accept;
use crate::state::cluster::ClusterState;
use crate::state::runs::{MeasuredNumerics, ProcessPhase, Run, Status, bounded};

impl ClusterState {
    pub(super) fn ready(
        &mut self,
        at_ms: u64,
        id: &RunId,
        process: u32,
        address: &str,
        numerics: &BTreeMap<String, String>,
        environment: &BTreeMap<String, String>,
    ) {
        let Some(run) = self.runs.get(id) else { return };
        let differ = match Self::numerics_differ(run, process, numerics) {
            Ok(accepted) => accepted,
            Err(difference) => return self.fail(at_ms, id, None, &difference),
        };
        if (process == 0 || !differ.is_empty() || run.state.measured.numerics.is_none())
            && let Some(measured) = self.measured_mut(id)
        {
            accept::remember(&mut measured.overrides, differ);
            measured.numerics.get_or_insert_with(|| MeasuredNumerics { process, values: numerics.clone() });
            if process == 0 {
                measured.environment.clone_from(environment);
            }
        }
        if let Some(placed) = self.process_mut(id, process).filter(|placed| placed.phase == ProcessPhase::Assigned) {
            placed.phase = ProcessPhase::Ready;
            placed.address = Some(bounded(address));
        }
        let all_ready = |run: &Run| run.state.placement.values().all(|placed| placed.address.is_some());
        if self.runs.get(id).is_some_and(|run| run.state.status == Status::Starting && all_ready(run))
            && let Some(run) = self.run_mut(id)
        {
            run.state.status = Status::Running;
            run.state.started_at_ms.get_or_insert(at_ms);
        }
    }

    /// Compares the numerics of `process` with another process's, the original run's, and those of the checkpoint to start from. Returns
    /// the accepted differences from the checkpoint.
    ///
    /// # Errors
    /// The reason why the run fails: the first difference that was not accepted.
    fn numerics_differ(run: &Run, process: u32, numerics: &BTreeMap<String, String>) -> Result<Vec<Override>, String> {
        let this = run.name_of(process);
        if let Some(first) = &run.state.measured.numerics
            && let Some(text) = difference(&run.name_of(first.process), &first.values, &this, numerics)
        {
            return Err(format!("the processes would compute different bits: {text}"));
        }
        if let (Some(replay), Some(original)) = (&run.submission.replay, &run.state.measured.original)
            && let Some(text) = difference(&format!("run `{}`", replay.of), original, &this, numerics)
        {
            return Err(format!("the replay would compute different bits: {text}"));
        }
        let Some(restore) = run.state.restore.as_ref() else { return Ok(Vec::new()) };
        let id = restore.checkpoint.short();
        let differ = accept::numerics(&run.state.measured.restored, numerics);
        // Differences are accepted only from another run's checkpoint. From its own checkpoints, the run must continue with the same bits.
        let is_own = run.checkpoints.values().any(|made| made.id == restore.checkpoint);
        let accepted = |key: &str| !is_own && accept::accepts(&run.submission.accepted, key);
        let refused: Vec<_> = differ.iter().filter(|one| !accepted(&one.key)).collect();
        let Some(first) = refused.first() else { return Ok(differ) };
        let key = first.key.strip_prefix("numerics.").unwrap_or(&first.key);
        let keys: Vec<&str> = refused.iter().map(|one| one.key.as_str()).collect();
        Err(format!(
            "the run would not continue with the same bits: `{key}` is `{}` for checkpoint `{id}`, and `{}` for {this}; to continue \
             with other bits, and record the difference in the new run, run `coord resume {id} --accept {}`",
            first.was,
            first.now,
            keys.join(" --accept ")
        ))
    }
}

/// The first key with different values, with both values, for users. `None` if there is no difference.
fn difference(
    a_name: &str,
    a: &BTreeMap<String, String>,
    b_name: &str,
    b: &BTreeMap<String, String>,
) -> Option<String> {
    let key = accept::differing(a, b).into_iter().next()?;
    let show = |map| accept::value(map, key).map_or("nothing".to_owned(), |value| format!("`{value}`"));
    Some(format!("`{key}` is {} for {a_name}, and {} for {b_name}", show(a), show(b)))
}
