//! `coord`: the coordinator and the commands that talk to it.

use std::process::ExitCode;

use clap::Parser;
use lockstep_coordinator::cli::{Arguments, run};

fn main() -> ExitCode {
    run(Arguments::parse()).into()
}
