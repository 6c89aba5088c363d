//! Alarms about checkpoints that failed.

use std::collections::BTreeSet;

use lockstep_common::RunId;
use lockstep_common::series::SeriesKey;
use lockstep_core::ClusterState;
use lockstep_core::state::{FailedCheckpoint, Run, Status, StatusKind};
use lockstep_core::view::RunView;
use lockstep_tracking::{Alarm, Kind, Severity};

use crate::node::{CallError, Handle};
use crate::numbers::hooks::Notifier;
use crate::query::words;

/// The alarms of a run: one for all failures between two checkpoints. It ends when the next checkpoint is committed.
pub(crate) fn alarms(view: &RunView) -> Vec<Alarm> {
    let mut alarms: Vec<Alarm> = Vec::new();
    for failed in &view.failed_checkpoints {
        let next = view.checkpoints.iter().map(|made| made.step).find(|step| *step >= failed.step);
        match alarms.last_mut() {
            Some(last) if last.until_step == next => last.what = words::failed_checkpoint(failed),
            _ => alarms.push(alarm(failed, next)),
        }
    }
    if view.row.status == StatusKind::Unsaved
        && let Some(last) = alarms.last_mut()
    {
        "the run trained to the end, but its last checkpoint is lost".clone_into(&mut last.title);
        last.try_ = vec![STORE.to_owned(), after(view)];
    }
    alarms
}

const STORE: &str = "check the store: is it full, is it mounted, can the worker write to it?";

/// The hint for a run whose last checkpoint is lost.
fn after(view: &RunView) -> String {
    match view.checkpoints.last() {
        Some(last) => {
            format!(
                "run `coord resume {}` to resume from the last good checkpoint, at step {}",
                last.id.short(),
                last.step
            )
        }
        None => "the run has no checkpoint to resume from: make room in the store, and submit the job again".to_owned(),
    }
}

fn alarm(failed: &FailedCheckpoint, until_step: Option<u64>) -> Alarm {
    let hints = [
        STORE,
        "make room in the store: the last checkpoint of a run is retried while its processes wait",
        "if a run ends without its last checkpoint, run `coord resume CHECKPOINT` with an earlier one",
    ];
    Alarm {
        kind: Kind::CheckpointFailed,
        severity: Severity::Error,
        since_step: failed.step,
        since_ms: failed.at_ms,
        until_step,
        place: None,
        series: SeriesKey::whole("loss"),
        title: "checkpoints cannot be written".to_owned(),
        what: words::failed_checkpoint(failed),
        try_: hints.map(str::to_owned).to_vec(),
    }
}

/// A series of failures: run, the last committed step before it, and whether the run ended without its last checkpoint.
type Known = (RunId, u64, bool);

/// Notifies when checkpoints of a run begin to fail, and again if the run ends unsaved. Failures from before the start are not repeated.
///
/// # Errors
/// `Stopping` once the event loop has ended.
pub(crate) async fn notify(handle: Handle, notifier: Notifier) -> Result<(), CallError> {
    let mut changes = handle.changes();
    let known = |state: &ClusterState| standing(state).into_iter().map(|(known, _)| known).collect();
    let mut told: BTreeSet<Known> = handle.read(known).await?;
    loop {
        for (known, alarm) in handle.read(standing).await? {
            if told.insert(known.clone()) {
                notifier.notify(&known.0, &alarm);
            }
        }
        changes.next().await?;
    }
}

fn standing(state: &ClusterState) -> Vec<(Known, Alarm)> {
    let of = |run: &Run| {
        run.standing_failure()?;
        let alarm = alarms(&RunView::of(run)).pop()?;
        let is_lost = matches!(run.state.status, Status::Unsaved { .. });
        let after = run.last_checkpoint().map_or(0, |last| last.step);
        Some(((run.id().clone(), after, is_lost), alarm))
    };
    state.runs().into_iter().filter_map(of).collect()
}
