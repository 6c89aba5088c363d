//! A child process that does not outlive its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::binary;

/// A running program; its output goes to a log.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, with standard output and standard error in `log`.
    pub fn start(program: &str, arguments: &[&str], log: &Path) -> Self {
        Self::start_with(program, arguments, &[], log)
    }

    /// The same, with more environment variables.
    pub fn start_with(program: &str, arguments: &[&str], variables: &[(&str, &str)], log: &Path) -> Self {
        Self::start_without(&[], program, arguments, variables, log)
    }

    /// The same, without variables of these names that the tests themselves have.
    pub fn start_without(
        left_out: &[&str],
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
        log: &Path,
    ) -> Self {
        let mut command = Command::new(binary(program));
        for name in left_out {
            command.env_remove(name);
        }
        Self::start_command(command.args(arguments).envs(variables.iter().copied()), log)
    }

    /// Starts `command`.
    pub fn start_command(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log is in the test's directory");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .spawn()
            .expect("the program is built");
        Self { child, log: log.to_owned() }
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log is there")
    }

    /// Its exit code, once it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("it was started here")?.code()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end (SIGTERM), and waits until it has: its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let asked = Command::new("kill").arg(self.pid().to_string()).status();
        // It may have ended by itself.
        asked.expect("kill(1) belongs to every system");
        self.child.wait().expect("it was started here").code()
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
