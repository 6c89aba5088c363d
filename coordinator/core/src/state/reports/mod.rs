//! What processes say: readiness, progress, checkpoint shares, and how they end.

mod finish;
mod ready;
mod report;
mod report_body;

pub use report_body::{Progress, ReportBody};
