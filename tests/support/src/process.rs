//! A child process that does not outlive its owner.

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

/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// A running program, whose output is kept. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Kept>,
    /// Whether it has a process group of its own.
    leads: bool,
}

impl Process {
    /// Starts `command`, which gets nothing to read.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::null()), |_| {})
    }

    /// The same, in a process group of its own: all that it starts is killed with it.
    pub fn start_group(command: &mut Command) -> Self {
        let mut process = Self::start(command.process_group(0));
        process.leads = true;
        process
    }

    /// Starts `command`, which may be told lines ([`tell`](Self::tell)); `hear` gets each line that it prints, as soon as that is there.
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

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whole lines that it wrote so far, to standard output and standard error, as they came.
    pub fn output(&self) -> String {
        self.output.text(None)
    }

    /// What `find` makes of a line that it writes or has written: of the first of which it makes something.
    ///
    /// # Panics
    /// If there is none within `limit` or before it ends: with all that it wrote.
    pub fn line<T>(&self, what: &str, limit: Duration, find: impl FnMut(&str) -> Option<T>) -> T {
        self.try_line(limit, find).unwrap_or_else(|| panic!("no {what} within {limit:?}:\n{}", self.output()))
    }

    /// The same; nothing if there is no such line.
    pub fn try_line<T>(&self, limit: Duration, find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.output.find(Instant::now() + limit, find)
    }

    /// Gives it a line to read.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("it was started to be told lines"), "{line}").expect("it reads");
    }

    /// Sends it `signal`. Nobody has waited for its end yet: until then its id is its own, even if it has ended.
    pub fn signal(&self, signal: Signal) {
        crate::signal(self.pid(), signal);
    }

    /// How it ended, once it has: as [`Outcome::code`].
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("it was started here").map(code)
    }

    /// Waits until it has ended by itself: what came of it.
    ///
    /// # Panics
    /// If it has not ended within `limit`, or what it wrote to has not: with all that it wrote.
    pub fn end(&mut self, limit: Duration) -> Outcome {
        let deadline = Instant::now() + limit;
        let code = self.wait(limit);
        assert!(self.output.is_over(deadline), "it has ended, and its output has not:\n{}", self.output());
        let [printed, said] = [Stream::Output, Stream::Error].map(|stream| self.output.text(Some(stream)));
        Outcome { code, printed, said }
    }

    /// Asks it to end (SIGTERM), and waits until it has: as [`Outcome::code`].
    pub fn stop(&mut self, limit: Duration) -> i32 {
        if self.exit_code().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait(limit)
    }

    /// kill -9, and waits for the end.
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
            assert!(Instant::now() < deadline, "it has not ended within {limit:?}:\n{}", self.output());
            thread::sleep(PAUSE);
        }
    }
}

/// Sends `signal` to a process that runs: one that a process of the test started.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("no process has the number 0");
    kill_process(pid, signal).expect("it runs");
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        if self.leads {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
