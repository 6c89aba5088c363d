//! Alarms about replicas that differ.

use std::collections::BTreeSet;

use lockstep_common::RunId;
use lockstep_common::series::SeriesKey;
use lockstep_core::ClusterState;
use lockstep_core::state::Corruption;
use lockstep_tracking::{Alarm, Kind, Severity};

use crate::node::{CallError, Handle};
use crate::numbers::hooks::Notifier;
use crate::query::words;

/// The alarm of one finding. It ends once the wrong process is known, because the run has then resumed from an earlier step.
pub(crate) fn alarm(found: &Corruption) -> Alarm {
    let tensor = found.tensors.first().map(|tensor| format!("`{tensor}`"));
    let wrong = found.verdict.iter().flat_map(|verdict| &verdict.wrong).map(|index| format!("process {index}"));
    let place: Vec<String> = tensor.into_iter().chain(wrong).collect();
    let hints = [
        "check the machine of the wrong process: memory, ECC errors of the device, temperature",
        "run `coord verify RUN`: it re-runs the steps and compares every bit",
        "the wrong device is fenced: run `coord unfence NODE DEVICE` once it works again",
    ];
    Alarm {
        kind: Kind::ReplicaMismatch,
        severity: Severity::Error,
        since_step: found.agreed,
        since_ms: found.at_ms,
        until_step: found.verdict.as_ref().map(|_| found.step),
        place: (!place.is_empty()).then(|| place.join(", ")),
        series: SeriesKey::whole("loss"),
        title: "the processes' copies of the state differ".to_owned(),
        what: words::corruption(found),
        try_: hints.map(str::to_owned).to_vec(),
    }
}

/// A finding: run, generation, step, and whether its verdict is known.
type Known = (RunId, u64, u64, bool);

/// Notifies of each finding, and again when its verdict is known. Findings with a verdict at the start are not repeated.
///
/// # Errors
/// `Stopping` once the event loop has ended.
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
