//! Programs that are run to their end.

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

/// What came of a program.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; where a signal ended it, the negative number of that, which no exit code is.
    pub code: i32,
    /// Standard output.
    pub printed: String,
    /// Standard error.
    pub said: String,
}

/// What `command`, which must succeed, writes to standard output.
///
/// # Panics
/// If it does not start or fails: with all that it wrote.
pub fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{printed}{said}", output.status);
    printed
}

/// The calling test program once more, for its test `name` alone: a process that a test needs beside itself. What that test writes
/// is not held back.
pub fn only_test(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", name, "--nocapture"]);
    command
}

pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().expect("a process ends by itself or by a signal"))
}
