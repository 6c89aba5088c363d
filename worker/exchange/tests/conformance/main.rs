//! The conformance suite of the mesh, on one machine: first with shared memory, then again over TCP connections alone.
#![cfg(test)]

mod failure;
mod processes;
mod rounds;
mod setup;
mod support;

use std::{env, process::Command};

use lockstep_support::printed;

/// Runs the whole suite again in a child process without shared memory.
#[test]
fn the_suite_holds_over_connections_alone() {
    if !support::shared() {
        return;
    }
    printed(Command::new(env::current_exe().unwrap()).arg("--test-threads=2").env(support::CONNECTIONS, "1"));
}
