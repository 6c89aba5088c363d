//! The coordinator as a process: the real `coord`, driven by clients, by an agent without processes, and by signals.

mod agent;
mod command_line;
mod crash;
mod life;
mod links;
mod support;
