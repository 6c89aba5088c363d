//! The coordinator as a process: the real `coord`, driven by clients, by an agent without processes, and by signals.

#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests by themselves, and clippy cannot tell")]

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
