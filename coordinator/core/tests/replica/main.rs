//! Tests of single replicas: when they answer, what they refuse, and how they recover.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod hostile;
mod lab;
mod recovery;
mod single;
