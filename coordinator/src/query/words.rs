//! Texts about faults of a run, one line each, for `coord` and for alarms.

use lockstep_core::state::{Corruption, FailedCheckpoint, Grounds};
use lockstep_core::view::RunView;

/// One line about a difference between replicas: steps, tensors, and the wrong processes once they are known.
pub fn corruption(found: &Corruption) -> String {
    let tensors = match found.tensors.as_slice() {
        [] => "some tensors".to_owned(),
        [first] => format!("`{first}`"),
        [first, rest @ ..] => format!("`{first}` and {} more", rest.len()),
    };
    let who = found.verdict.as_ref().map(|verdict| {
        let device = |index: &u32| {
            let claim = found.claims.get(*index as usize)?;
            Some(format!("process {index} on `{}` of `{}`", claim.device_name, claim.node))
        };
        let wrong: Vec<String> = verdict.wrong.iter().filter_map(device).collect();
        let how = match verdict.grounds {
            Grounds::Majority => "the other processes agreed",
            Grounds::Replay => "a re-run of the steps gave other bits",
            Grounds::Unstable => "its re-run of the steps gave other bits than its first run",
        };
        if wrong.is_empty() {
            "a re-run of the steps matched no process".to_owned()
        } else {
            format!("wrong: {} ({how})", wrong.join(", "))
        }
    });
    format!(
        "silent corruption found at step {} of generation {} in {tensors}; the processes last agreed at step {}; {}",
        found.step,
        found.generation,
        found.agreed,
        who.unwrap_or_else(|| "the wrong process is not known yet".to_owned())
    )
}

/// One line about a checkpoint that failed, with its reason.
pub fn failed_checkpoint(failed: &FailedCheckpoint) -> String {
    let times = if failed.attempts > 1 { format!(", {} times", failed.attempts) } else { String::new() };
    format!("checkpoint at step {} failed{times}: {}", failed.step, failed.reason)
}

/// One line about each failed checkpoint of a run.
pub fn failed_checkpoints(view: &RunView) -> impl Iterator<Item = String> + '_ {
    let later = |failed: &FailedCheckpoint| view.checkpoints.iter().any(|made| made.step == failed.step);
    view.failed_checkpoints.iter().map(move |failed| {
        let end = if later(failed) { " (it was saved later)" } else { "" };
        failed_checkpoint(failed) + end
    })
}
