//! Replicas that were found to differ, as an alarm.

use std::collections::BTreeSet;

use lockstep_common::RunId;
use lockstep_common::series::SeriesKey;
use lockstep_core::ClusterState;
use lockstep_core::state::Corruption;
use lockstep_tracking::{Alarm, Kind, Severity};

use crate::node::{CallError, Handle};
use crate::numbers::hooks::Notifier;
use crate::query::words;

/// It as an alarm: over once it is known who was wrong, as the run went on from before.
pub(crate) fn alarm(found: &Corruption) -> Alarm {
    let tensor = found.tensors.first().map(|tensor| format!("`{tensor}`"));
    let wrong = found.verdict.iter().flat_map(|verdict| &verdict.wrong).map(|index| format!("process {index}"));
    let place: Vec<String> = tensor.into_iter().chain(wrong).collect();
    let hints = [
        "look at the machine that was wrong: its memory, its device's ECC errors, its temperature",
        "`coord verify` makes the steps again and compares every bit",
        "the device is fenced; `coord unfence` gives it back once it is trusted",
    ];
    Alarm {
        kind: Kind::ReplicaMismatch,
        severity: Severity::Error,
        since_step: found.agreed,
        since_ms: found.at_ms,
        until_step: found.verdict.as_ref().map(|_| found.step),
        place: (!place.is_empty()).then(|| place.join(", ")),
        series: SeriesKey::whole("loss"),
        title: "processes that should hold the same state do not".to_owned(),
        what: words::corruption(found),
        try_: hints.map(str::to_owned).to_vec(),
    }
}

/// A finding by run, generation and step, and whether it is known who was wrong.
type Known = (RunId, u64, u64, bool);

/// Notifies of each finding, and again when it is known who was wrong, until the state changes no more. What was settled
/// before is not told again.
pub(crate) async fn notify(handle: Handle, notifier: Notifier) -> Result<(), CallError> {
    let mut changes = handle.changes();
    let settled = |state: &ClusterState| {
        let judged = findings(state).into_iter().filter(|(_, found)| found.verdict.is_some());
        judged.map(|(known, _)| known).collect()
    };
    let mut told: BTreeSet<Known> = handle.read(settled).await?;
    loop {
        let before = told.clone();
        let new = handle.read(move |state| {
            let new = findings(state).into_iter().filter(|(known, _)| !before.contains(known));
            new.map(|(known, found)| (known, alarm(found))).collect::<Vec<_>>()
        });
        for (known, alarm) in new.await? {
            notifier.notify(&known.0, &alarm);
            told.insert(known);
        }
        changes.next().await?;
    }
}

fn findings(state: &ClusterState) -> Vec<(Known, &Corruption)> {
    let mut all = Vec::new();
    for run in state.runs() {
        for found in &run.state.corruptions {
            let known = (run.submission.id.clone(), found.generation, found.step, found.verdict.is_some());
            all.push((known, found));
        }
    }
    all
}
