//! What processes say: readiness, progress, checkpoint shares, and how they end.

mod finish;
mod ready;
mod report;
