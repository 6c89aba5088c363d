//! Tests with real rank processes, and with training in the test's own process. They are one program, so that libtorch is linked once. The
//! runner starts a process for each test, because libtorch's threads, generators and floating-point mode belong to the whole process.

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
