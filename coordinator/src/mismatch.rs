//! Replicas that were found to differ, in words and as an alarm.

use lockstep_common::series::SeriesKey;
use lockstep_core::state::{Corruption, Grounds};
use lockstep_tracking::{Alarm, Kind, Severity};

/// A difference between replicas, in a line.
pub(crate) fn words(found: &Corruption) -> String {
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
        what: words(found),
        try_: hints.map(str::to_owned).to_vec(),
    }
}
