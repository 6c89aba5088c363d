//! Tests of `coord` as a process, driven by commands, by signals, and by a simulated agent without processes.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helper functions belong to tests")]

mod agent;
mod archive;
mod blobs;
mod command_line;
mod crash;
mod damage;
mod export;
mod floods;
mod life;
mod links;
mod machines;
mod support;
mod terminal;
mod tools;
