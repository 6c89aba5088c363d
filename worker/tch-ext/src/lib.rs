//! What `tch` lacks and data-parallel training needs: process groups, generator states, determinism switches, fused
//! optimizers with their state, allocator statistics, gradient hooks, streams, copies beside them, autocast, and TorchScript modules with true names.
//!
//! A C++ shim in `cpp/` does the work; nothing else in Lockstep is C++ or calls into it. Every entry point of the shim
//! catches what libtorch throws and returns it as text, so an exception arrives here as an [`Error`], never as an
//! unwinding through Rust.
#![expect(unsafe_code, reason = "this crate is the face of a C++ library; each block states what makes it sound")]

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

/// How `/proc/self/maps` names the part of this program that calls libtorch's CUDA libraries, where it was loaded.
pub const CUDA_IMAGE: &str = "/memfd:lockstep-cuda";
