//! One replica at a time: when it answers, what it refuses, and how it comes back.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod hostile;
mod lab;
mod recovery;
mod single;
