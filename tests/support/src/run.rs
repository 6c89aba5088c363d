//! Runs programs to their end.

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

/// Exit code and output of a program.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code, or minus the number of the signal that ended the program.
    pub code: i32,
    /// Standard output.
    pub printed: String,
    /// Standard error.
    pub said: String,
}

/// Runs `command`, which must succeed, and returns its standard output.
///
/// # Panics
/// If it does not start, or fails; the panic message contains its output.
pub fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{printed}{said}", output.status);
    printed
}

/// A command that runs only the test `name` of the calling test program, in a process of its own, and shows its output.
pub fn only_test(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", name, "--nocapture"]);
    command
}

pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().expect("a process ends by itself or by a signal"))
}
