//! Child processes that end with their owner.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::Outcome;
use crate::output::{Kept, Stream};
use crate::run::code;

/// Pause between two polls.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// A running program and its output so far. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Kept>,
    /// Whether it leads a process group of its own.
    leads: bool,
}

impl Process {
    /// Starts `command` with an empty standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::null()), |_| {})
    }

    /// As [`start`](Self::start), in its own process group: the programs that it starts are killed with it.
    pub fn start_group(command: &mut Command) -> Self {
        let mut process = Self::start(command.process_group(0));
        process.leads = true;
        process
    }

    /// Starts `command` with a standard input for [`tell`](Self::tell); calls `hear` with each line of its standard output.
    pub fn start_told(command: &mut Command, hear: impl FnMut(&str) + Send + 'static) -> Self {
        Self::spawn(command.stdin(Stdio::piped()), hear)
    }

    fn spawn(command: &mut Command, hear: impl FnMut(&str) + Send + 'static) -> Self {
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = Arc::<Kept>::default();
        output.read(Stream::Output, child.stdout.take().expect("it is piped"), hear);
        output.read(Stream::Error, child.stderr.take().expect("it is piped"), |_| {});
        Self { child, output, leads: false }
    }

    /// The operating system's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The complete lines so far of standard output and standard error, in the order of their arrival.
    pub fn output(&self) -> String {
        self.output.text(None)
    }

    /// Waits for the first line for which `find` returns a value, among past and future lines, and returns that value.
    ///
    /// # Panics
    /// If there is no such line within `limit` or before the program ends; the panic message contains the output.
    pub fn line<T>(&self, what: &str, limit: Duration, find: impl FnMut(&str) -> Option<T>) -> T {
        self.try_line(limit, find).unwrap_or_else(|| panic!("no {what} within {limit:?}:\n{}", self.output()))
    }

    /// As [`line`](Self::line), but returns `None` instead of panicking.
    pub fn try_line<T>(&self, limit: Duration, find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.output.find(Instant::now() + limit, find)
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("it was started to be told lines"), "{line}").expect("it reads");
    }

    /// Sends `signal`. Nobody has waited for the process yet, so its id still belongs to it, even if it has ended.
    pub fn signal(&self, signal: Signal) {
        crate::signal(self.pid(), signal);
    }

    /// [`Outcome::code`] if the process has ended, otherwise `None`.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("it was started here").map(code)
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// If the process or its output streams have not ended within `limit`; the panic message contains the output.
    pub fn end(&mut self, limit: Duration) -> Outcome {
        let deadline = Instant::now() + limit;
        let code = self.wait(limit);
        assert!(self.output.is_over(deadline), "its output is still open after its end:\n{}", self.output());
        let [printed, said] = [Stream::Output, Stream::Error].map(|stream| self.output.text(Some(stream)));
        Outcome { code, printed, said }
    }

    /// Sends SIGTERM, waits for the end, and returns [`Outcome::code`].
    pub fn stop(&mut self, limit: Duration) -> i32 {
        if self.exit_code().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait(limit)
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    fn wait(&mut self, limit: Duration) -> i32 {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(code) = self.exit_code() {
                return code;
            }
            assert!(Instant::now() < deadline, "the process has not ended within {limit:?}:\n{}", self.output());
            thread::sleep(PAUSE);
        }
    }
}

/// Sends `signal` to a running process that a child of the test started.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("no process has the number 0");
    kill_process(pid, signal).expect("it runs");
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that the process has already ended.
        if self.leads {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
