//! Effects of commands on the state, tested through the public interface.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod archive;
#[path = "../simulation/blobs.rs"]
mod blobs;
mod checkpoints;
mod cluster;
mod commands;
mod corruption;
mod endings;
mod failures;
mod format_6;
mod life;
mod nodes;
mod queue;
mod random;
mod replay;
mod resume;
mod rows;
