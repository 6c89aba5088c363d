//! The conformance suite of the mesh.
#![cfg(test)]

mod failure;
mod processes;
mod rounds;
mod setup;
mod support;
