//! What lists say of a run.

use lockstep_coordinator::query::words;
use lockstep_core::view::{Number, RunRow};

/// Why it waits or has failed, or that its checkpoints fail: a line.
pub(crate) fn reason(row: &RunRow) -> String {
    let reason = row.reason.clone().or_else(|| row.checkpoint_failed.as_ref().map(words::failed_checkpoint));
    reason.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// How many alarms stand, if any.
pub(crate) fn alarm_count(row: &RunRow) -> String {
    row.alarms.filter(|count| *count > 0).map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// A number for people.
pub(crate) fn number(number: Option<&Number>) -> String {
    match number {
        None => "-".to_owned(),
        Some(Number { value: None, .. }) => "not finite".to_owned(),
        Some(Number { value: Some(value), .. }) if *value != 0.0 && value.abs() < 1e-3 => format!("{value:.3e}"),
        Some(Number { value: Some(value), .. }) => format!("{value:.4}"),
    }
}
