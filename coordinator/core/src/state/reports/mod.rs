//! Reports of processes: readiness, progress, checkpoint shares, comparisons and endings.

mod finish;
mod ready;
mod report;
mod report_body;

pub use report_body::{Progress, ReportBody};
