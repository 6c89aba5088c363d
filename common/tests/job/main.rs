//! What makes a job: its text, its values, and what follows from them for a process.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod numerics;
mod parse;
mod program;
mod validate;
