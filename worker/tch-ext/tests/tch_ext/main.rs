//! Tests of each part of this crate, some of them in comparison with PyTorch. The project's runner starts a process for each test, so
//! tests may change properties of the whole process (switches, libraries, its end).
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
