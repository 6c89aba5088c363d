//! The conformance suite of the mesh again, over nothing but connections.
#![cfg(test)]

#[path = "../conformance/failure.rs"]
mod failure;
#[path = "../conformance/processes.rs"]
mod processes;
#[path = "../conformance/rounds.rs"]
mod rounds;
#[path = "../conformance/setup.rs"]
mod setup;
#[path = "../conformance/support.rs"]
mod support;
