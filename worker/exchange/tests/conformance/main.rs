//! The conformance suite of the mesh, with shared memory where there is any: everywhere, on one machine.
#![cfg(test)]

mod failure;
mod processes;
mod rounds;
mod setup;
mod support;
