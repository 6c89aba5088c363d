//! Checkpoints that failed, as alarms.

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

/// The failures of a run as alarms: one for those between two checkpoints. It is over when the next one is committed.
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
        "the run is trained to the end, and its last checkpoint is lost".clone_into(&mut last.title);
        last.try_ = vec![STORE.to_owned(), after(view)];
    }
    alarms
}

const STORE: &str = "look at the store: is it full, is it mounted, may the worker write there";

/// What is left to do once a run's last checkpoint is lost.
fn after(view: &RunView) -> String {
    match view.checkpoints.last() {
        Some(last) => {
            format!("`coord resume {}` goes on from its last checkpoint, at step {}", last.id.short(), last.step)
        }
        None => "the run has no checkpoint to go on from: make room, and submit it again".to_owned(),
    }
}

fn alarm(failed: &FailedCheckpoint, until_step: Option<u64>) -> Alarm {
    let hints = [
        STORE,
        "the last checkpoint of a run is tried again by itself while its processes wait: make room, and it is saved",
        "a run that ends without it goes on from its last checkpoint with `coord resume`",
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

/// A row of failures by run and the last committed step before it, and whether the run ended without its last checkpoint.
type Known = (RunId, u64, bool);

/// Notifies when checkpoints of a run begin to fail, and again if it ends unsaved, until the state changes no more. What
/// stood at the start is not told again.
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
