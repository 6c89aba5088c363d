//! The conformance suite of the mesh.

mod failure;
mod processes;
mod rounds;
mod setup;
mod support;
