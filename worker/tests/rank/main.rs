//! Rank processes, real ones, and training in the test's own process. One program: it links libtorch once. The runner gives each
//! test a process of its own, since libtorch's threads and generators, and the float mode, belong to a whole process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cuda;
mod data;
mod exactness;
mod exchange;
mod failures;
#[cfg(target_arch = "x86_64")]
mod lab;
mod later;
mod numeric;
mod processes;
mod programs;
mod reduction;
mod stateful;
mod traps;
mod unused;
