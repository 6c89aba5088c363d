//! A process is ready: it must compute as the others do, and as the run did before.

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

    /// How `numerics` of `process` differ from another process's, or from those of the checkpoint to begin from: in what
    /// was accepted, or else what to tell people.
    fn numerics_differ(run: &Run, process: u32, numerics: &BTreeMap<String, String>) -> Result<Vec<Override>, String> {
        let this = run.name_of(process);
        if let Some(first) = &run.state.measured.numerics
            && let Some(text) = difference(&run.name_of(first.process), &first.values, &this, numerics)
        {
            return Err(format!("processes would not compute alike: {text}"));
        }
        if let (Some(replay), Some(original)) = (&run.submission.replay, &run.state.measured.original)
            && let Some(text) = difference(&format!("run `{}`", replay.of), original, &this, numerics)
        {
            return Err(format!("the replay would not compute alike: {text}"));
        }
        let Some(restore) = run.state.restore.as_ref() else { return Ok(Vec::new()) };
        let id = restore.checkpoint.short();
        let differ = accept::numerics(&run.state.measured.restored, numerics);
        // What was accepted is how the run began: from its own checkpoints on, its later generations compute as the earlier ones.
        let is_own = run.checkpoints.values().any(|made| made.id == restore.checkpoint);
        let accepted = |key: &str| !is_own && accept::accepts(&run.submission.accepted, key);
        let refused: Vec<_> = differ.iter().filter(|one| !accepted(&one.key)).collect();
        let Some(first) = refused.first() else { return Ok(differ) };
        let key = first.key.strip_prefix("numerics.").unwrap_or(&first.key);
        let keys: Vec<&str> = refused.iter().map(|one| one.key.as_str()).collect();
        Err(format!(
            "the run would not go on with the same bits: `{key}` is `{}` for checkpoint `{id}`, and `{}` for {this}; to go \
             on with other bits, which all that comes of it will say: `coord resume {id} --accept {}`",
            first.was,
            first.now,
            keys.join(" --accept ")
        ))
    }
}

/// The first key with different values, and both values.
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
