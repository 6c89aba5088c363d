//! A short form of `make exactness`: three rows of its matrix, and the golden bits of `portable`.

#![expect(clippy::print_stdout, reason = "the tables are worth reading")]

use std::process::Command;

use lockstep_support::{printed, repository};

fn runs(script: &str, arguments: &[&str]) {
    let script = repository().join("tests/exactness").join(script);
    println!("{}", printed(Command::new("python3").arg(script).args(arguments)));
}

#[test]
fn no_number_of_processes_no_resume_and_no_kill_changes_a_bit() {
    runs("matrix.py", &["--quick"]);
}

#[test]
fn portable_gives_the_bits_of_other_vendors() {
    runs("portable.py", &["--quick"]);
}
