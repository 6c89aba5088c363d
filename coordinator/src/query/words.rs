//! What is wrong with a run, in lines for people.

use lockstep_core::state::{Corruption, FailedCheckpoint, Grounds};
use lockstep_core::view::RunView;

/// A difference between replicas, in a line.
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
            Grounds::Majority => "the others agreed",
            Grounds::Replay => "the steps were made again",
            Grounds::Unstable => "it came to something else when the steps were made again",
        };
        if wrong.is_empty() {
            "made again, the steps agreed with nobody".to_owned()
        } else {
            format!("wrong was {}: {how}", wrong.join(", "))
        }
    });
    format!(
        "silent corruption found at step {} of generation {} in {tensors}; all agreed at step {}; {}",
        found.step,
        found.generation,
        found.agreed,
        who.unwrap_or_else(|| "who was wrong is not known yet".to_owned())
    )
}

/// A checkpoint that failed, in a line.
pub fn failed_checkpoint(failed: &FailedCheckpoint) -> String {
    let times = if failed.attempts > 1 { format!(", {} times", failed.attempts) } else { String::new() };
    format!("checkpoint at step {} failed{times}: {}", failed.step, failed.reason)
}

/// What `view` has of failed checkpoints, each in a line.
pub fn failed_checkpoints(view: &RunView) -> impl Iterator<Item = String> + '_ {
    let later = |failed: &FailedCheckpoint| view.checkpoints.iter().any(|made| made.step == failed.step);
    view.failed_checkpoints.iter().map(move |failed| {
        let end = if later(failed) { " (it was saved later)" } else { "" };
        failed_checkpoint(failed) + end
    })
}
