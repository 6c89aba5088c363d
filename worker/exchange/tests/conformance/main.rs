//! The conformance suite of the mesh: with shared memory where there is any, everywhere, on one machine; and all of it again over
//! nothing but connections.
#![cfg(test)]

mod failure;
mod processes;
mod rounds;
mod setup;
mod support;

use std::{env, process::Command};

use lockstep_support::printed;

/// The whole suite in a process of its own, this program again.
#[test]
fn the_suite_holds_over_connections_alone() {
    if !support::shared() {
        return;
    }
    printed(Command::new(env::current_exe().unwrap()).arg("--test-threads=2").env(support::CONNECTIONS, "1"));
}
