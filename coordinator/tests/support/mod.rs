//! The real `coord`, as a process, for tests.

#![expect(dead_code, reason = "each test file uses its own part of this")]

pub mod agent;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// For anything that has to happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// `coord` with these arguments and none of this process's configuration.
pub fn coord(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coord"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOCKSTEP_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs `coord` to its end.
pub fn run(arguments: &[&str]) -> Output {
    coord(arguments).output().expect("coord runs")
}

/// Runs `coord` to its end, which must be the exit code `code`; its standard error.
pub fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

/// A `coord serve` on a free port; killed when dropped.
pub struct Coordinator {
    pub address: String,
    child: Child,
}

impl Coordinator {
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// With more arguments.
    pub fn start_with(dir: &Path, more: &[&str]) -> Self {
        let dir = dir.to_str().expect("a plain path");
        let arguments = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", dir], more].concat();
        let mut child = coord(&arguments).stderr(Stdio::piped()).spawn().expect("coord starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (found, address) = mpsc::channel();
        thread::spawn(move || {
            let mut log = String::new();
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ") {
                    // A second line would be a bug that `only_one_line` looks for; nobody listens then.
                    let _ = found.send(Ok(address.to_owned()));
                }
                log.push_str(&line);
                log.push('\n');
            }
            let _ = found.send(Err(log));
        });
        match address.recv_timeout(DEADLINE) {
            Ok(Ok(address)) => Self { address, child },
            Ok(Err(log)) => panic!("coord serve ended:\n{log}"),
            Err(error) => panic!("coord serve did not say where it listens: {error}"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started here");
    }

    /// SIGTERM; its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it was started here") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "coord serve does not end after SIGTERM");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The answer of a reader as JSON.
    pub fn ask(&self, words: &[&str]) -> serde_json::Value {
        let output = run(&[words, &["--json", "--addr", &self.address]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Submits a job; the id of its run.
    pub fn submit(&self, job: &Path) -> String {
        let output = run(&["submit", job.to_str().expect("a plain path"), "--addr", &self.address]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // Gone already, if the test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a sound job of `ranks` ranks and `steps` steps, and its data, into `dir`; the job's path.
pub fn write_job(dir: &Path, ranks: u32, steps: u64) -> PathBuf {
    fs::write(dir.join("data.csv"), "x,y\n1,0\n2,1\n3,0\n4,1\n").expect("written");
    let path = dir.join("job.toml");
    let text = format!(
        "name = \"walk\"\nsteps = {steps}\nranks = {ranks}\nbatch = {{ size = {} }}\n\
         model = {{ kind = \"mlp\", hidden = [4], outputs = 2 }}\n\
         data = {{ kind = \"csv\", path = \"data.csv\", target = \"y\" }}\n\
         optimizer = {{ kind = \"sgd\", lr = 0.1 }}\ncheckpoint = {{ every_steps = 2 }}\n",
        2 * ranks
    );
    fs::write(&path, text).expect("written");
    path
}
