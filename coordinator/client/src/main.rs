//! `coord`: the coordinator and the commands that talk to it.

use std::process::ExitCode;

use lockstep_client::main as carry_out;

fn main() -> ExitCode {
    carry_out().into()
}
