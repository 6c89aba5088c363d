//! The rank process: trains one process's share of a run, with the models that Lockstep brings. Started by the agent, through
//! `worker rank`.
//!
//! A program of its own, because loading libtorch takes longer than anything else that a start does, and the agent needs
//! none of it.

fn main() -> std::process::ExitCode {
    lockstep_worker::program::BuiltIn::main()
}
