//! Cells of a run in lists.

use lockstep_coordinator::query::words;
use lockstep_core::view::{Number, RunRow};

/// One line: why the run waits or has failed, or why its checkpoints fail.
pub(crate) fn reason(row: &RunRow) -> String {
    let reason = row.reason.clone().or_else(|| row.checkpoint_failed.as_ref().map(words::failed_checkpoint));
    reason.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// The number of active alarms, or `-`.
pub(crate) fn alarm_count(row: &RunRow) -> String {
    row.alarms.filter(|count| *count > 0).map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// A number with four decimals, as `1.234e-5` below 0.001, `-`, or `not finite`.
pub(crate) fn number(number: Option<&Number>) -> String {
    match number {
        None => "-".to_owned(),
        Some(Number { value: None, .. }) => "not finite".to_owned(),
        Some(Number { value: Some(value), .. }) if *value != 0.0 && value.abs() < 1e-3 => format!("{value:.3e}"),
        Some(Number { value: Some(value), .. }) => format!("{value:.4}"),
    }
}
