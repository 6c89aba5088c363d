//! The training program for the built-in models and for TorchScript modules.
//!
//! - `worker-rank rank` trains the ranks of one process of a run. The agent starts `worker rank`, which replaces itself by this program.
//!   For a job with `[program]` the agent starts the user's own program instead.
//! - `worker-rank train JOB` trains a job in one process, without coordinator and checkpoints.
//! - `operators`, `export-script` and `scores` are hidden commands for `worker --operators`, `coord export --raw-inputs` and tests.
//!
//! It is separate from `worker` because it links libtorch: loading libtorch is the longest part of a start, and the agent does not need it.

fn main() -> std::process::ExitCode {
    lockstep_worker::program::BuiltIn::main()
}
