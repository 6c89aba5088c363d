//! Against the real DVC: it makes the repositories that are read, and judges what was fetched.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod fetch;
mod hashes;
mod records;
mod refusals;
mod remotes;
mod repo;
mod servers;
