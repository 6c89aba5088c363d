//! Functions of libtorch that `tch` lacks and data-parallel training needs: process groups, generator states, determinism switches, fused
//! optimizers with their state, allocator statistics, gradient hooks, streams, asynchronous copies, autocast, and TorchScript modules with
//! their dotted names.
//!
//! The functions are in a C++ shim in `cpp/`. Except for `lockstep-gloo`, which only tests use, no other crate has or calls C++. Every
//! entry point of the shim catches the exceptions of libtorch and returns them as text, so an exception arrives here as an [`Error`] and
//! never unwinds through Rust.
#![expect(unsafe_code, reason = "this crate is the interface to a C++ library; each block states what makes it sound")]

pub mod bits;
pub mod c10d;
mod error;
pub mod exit;
mod ffi;
pub mod fold;
pub mod generator;
pub mod histogram;
pub mod hooks;
pub mod memory;
pub mod optim;
pub mod script;
pub mod stacks;
pub mod streams;
mod switches;
pub mod transfers;

pub use error::Error;
pub use switches::{autocast, determinism, float_mode, processor};

/// The name in `/proc/self/maps` of the part of this program that calls libtorch's CUDA libraries, if it is loaded.
pub const CUDA_IMAGE: &str = "/memfd:lockstep-cuda";
