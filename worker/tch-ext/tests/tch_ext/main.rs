//! What this crate adds to tch, each part by itself; what takes an oracle beside PyTorch. Under the project's runner each test is a
//! process of its own, so what belongs to the process (switches, libraries, its end) is a test's own.
#![cfg(test)]

mod autocast;
mod bits;
mod c10d;
mod common;
mod cuda;
mod determinism;
mod exit;
mod fold;
mod generator;
mod histogram;
mod hooks;
mod memory;
mod optim;
mod script;
