//! `coord`: the coordinator and the commands that talk to it.

use std::process::ExitCode;

use lockstep_coordinator::cli;

fn main() -> ExitCode {
    cli::main().into()
}
