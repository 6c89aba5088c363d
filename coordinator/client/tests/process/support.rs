//! Runs the real `coord` as a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lockstep_support::{Outcome, Process, Signal, http, printed, wait_within};

/// How long a test waits for anything that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// `coord` with these arguments, without the `LOCKSTEP_` variables of this process.
pub(crate) fn coord(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coord"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOCKSTEP_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Waits until `look` returns a value, and returns it. It panics with `what` after [`DEADLINE`].
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, look)
}

/// Copies `coord` into `dir`, where no `worker` is beside it. The copy is made by `cp`: if this process had the file open for writing, a
/// fork of another test could keep it busy.
pub(crate) fn copy_of_coord(dir: &Path) -> PathBuf {
    let copy = dir.join("coord");
    printed(Command::new("cp").arg(env!("CARGO_BIN_EXE_coord")).arg(&copy));
    copy
}

/// Runs `coord` to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    coord(arguments).output().expect("coord runs")
}

/// Runs `coord`, which must end with the exit code `code`, and returns its standard error.
pub(crate) fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

/// A `coord serve` on a free port; killed when dropped.
pub(crate) struct Coordinator {
    pub(crate) address: String,
    process: Process,
}

impl Coordinator {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts it with the additional arguments `more`.
    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        Self::start_under(&[], dir, more)
    }

    /// Starts it through `program`, which gets the command line of `coord` as its last arguments.
    pub(crate) fn start_under(program: &[&str], dir: &Path, more: &[&str]) -> Self {
        Self::try_start_under(program, dir, more).unwrap_or_else(|Outcome { code, said, .. }| {
            panic!("coord serve does not listen ({code}):\n{said}");
        })
    }

    /// Starts it, or returns how it ended before it listened.
    pub(crate) fn try_start(dir: &Path) -> Result<Self, Outcome> {
        Self::try_start_under(&[], dir, &[])
    }

    fn try_start_under(program: &[&str], dir: &Path, more: &[&str]) -> Result<Self, Outcome> {
        let dir = dir.to_str().expect("a plain path");
        let listen: &[&str] = if more.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let listen = [listen, &["--web-listen", "127.0.0.1:0"]].concat();
        let arguments = [&["serve", "--data-dir", dir], listen.as_slice(), more].concat();
        let mut command = coord(&arguments);
        if let Some((first, rest)) = program.split_first() {
            command = Command::new(first);
            command.args(rest).arg(env!("CARGO_BIN_EXE_coord")).args(&arguments);
        }
        let mut process = Process::start(&mut command);
        match process.try_line(DEADLINE, |line| line.strip_prefix("listening on ").map(str::to_owned)) {
            Some(address) => Ok(Self { address, process }),
            None => Err(process.end(DEADLINE)),
        }
    }

    /// Waits until it has ended by itself, and returns how.
    pub(crate) fn ended(mut self) -> Outcome {
        self.process.end(DEADLINE)
    }

    /// The address of its page.
    pub(crate) fn page(&self) -> String {
        let address = |line: &str| Some(line.strip_prefix("page at http://")?.trim_end_matches('/').to_owned());
        self.process.line("address of the page", DEADLINE, address)
    }

    /// Status and body of the page's answer to GET `path`.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http(&self.page(), "GET", path, "", DEADLINE)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM, and returns its log.
    pub(crate) fn log(self) -> String {
        self.signal(Signal::TERM);
        self.ended().said
    }

    /// Sends SIGTERM, and returns its exit code.
    pub(crate) fn terminate(mut self) -> i32 {
        self.process.stop(DEADLINE)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Runs `coord` with `words` against it.
    pub(crate) fn coord(&self, words: &[&str]) -> Output {
        run(&[words, &["--addr", &self.address]].concat())
    }

    /// Runs `coord` with `words` and `--json` against it, and returns the answer.
    pub(crate) fn ask(&self, words: &[&str]) -> serde_json::Value {
        let output = run(&[words, &["--json", "--addr", &self.address]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Submits a job, and returns the id of its run.
    pub(crate) fn submit(&self, job: &Path) -> String {
        let output = run(&["submit", job.to_str().expect("a plain path"), "--addr", &self.address]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}

/// Writes a valid job of `ranks` ranks and `steps` steps, and its data, into `dir`, and returns the job's path.
pub(crate) fn write_job(dir: &Path, ranks: u32, steps: u64) -> PathBuf {
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

/// Copies everything in `from` to `to`.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("copied");
    for entry in fs::read_dir(from).expect("copied").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}
