//! The real `coord`, as a process, for tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// For anything that has to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// `coord` with these arguments and none of this process's configuration.
pub(crate) fn coord(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coord"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOCKSTEP_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Waits until `look` sees something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs `coord` to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    coord(arguments).output().expect("coord runs")
}

/// Runs `coord` to its end, which must be the exit code `code`; its standard error.
pub(crate) fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

/// A `coord serve` on a free port; killed when dropped.
pub(crate) struct Coordinator {
    pub(crate) address: String,
    child: Child,
    log: mpsc::Receiver<String>,
    page: mpsc::Receiver<String>,
}

impl Coordinator {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// With more arguments.
    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        Self::start_under(&[], dir, more)
    }

    /// As the last arguments of another program.
    pub(crate) fn start_under(program: &[&str], dir: &Path, more: &[&str]) -> Self {
        Self::try_start_under(program, dir, more).unwrap_or_else(|(code, log)| {
            panic!("coord serve does not listen ({code:?}):\n{log}");
        })
    }

    /// Of one that ends before it listens, its exit code and all that it wrote.
    pub(crate) fn try_start(dir: &Path) -> Result<Self, (Option<i32>, String)> {
        Self::try_start_under(&[], dir, &[])
    }

    fn try_start_under(program: &[&str], dir: &Path, more: &[&str]) -> Result<Self, (Option<i32>, String)> {
        let dir = dir.to_str().expect("a plain path");
        let listen: &[&str] = if more.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let listen = [listen, &["--web-listen", "127.0.0.1:0"]].concat();
        let arguments = [&["serve", "--data-dir", dir], listen.as_slice(), more].concat();
        let mut command = coord(&arguments);
        if let Some((first, rest)) = program.split_first() {
            command = Command::new(first);
            command.args(rest).arg(env!("CARGO_BIN_EXE_coord")).args(&arguments).stdin(Stdio::null());
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("coord starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (found, address) = mpsc::channel();
        let (ended, log) = mpsc::channel();
        let (page_found, page) = mpsc::channel();
        thread::spawn(move || {
            let mut log = String::new();
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ") {
                    // Nobody waits for a second such line.
                    let _ = found.send(address.to_owned());
                }
                if let Some(address) = line.strip_prefix("page at http://") {
                    let _ = page_found.send(address.trim_end_matches('/').to_owned());
                }
                log.push_str(&line);
                log.push('\n');
            }
            // First the log, so that whoever misses the address finds it.
            let _ = ended.send(log);
            drop(found);
        });
        let address = match address.recv_timeout(DEADLINE) {
            Ok(address) => address,
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("it was started here");
                return Err((status.code(), log.try_recv().unwrap_or_default()));
            }
            Err(RecvTimeoutError::Timeout) => {
                // It may have ended meanwhile.
                let _ = child.kill();
                child.wait().expect("it was started here");
                return Err((None, "neither an address nor an end in time".to_owned()));
            }
        };
        Ok(Self { address, child, log, page })
    }

    /// Waits until it has ended by itself; its exit code, and all that it wrote.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = wait_for("its end", || self.child.try_wait().expect("it was started here"));
        (status.code(), self.log.recv_timeout(DEADLINE).expect("its output ends with it"))
    }

    /// Where its page is; to be asked once.
    pub(crate) fn page(&self) -> String {
        self.page.recv_timeout(DEADLINE).expect("its page stands in the line after its address")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started here");
    }

    /// SIGTERM; all that it wrote.
    pub(crate) fn log(self) -> String {
        self.interrupt();
        self.ended().1
    }

    /// SIGTERM; its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.interrupt();
        wait_for("its end after SIGTERM", || self.child.try_wait().expect("it was started here")).code()
    }

    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    /// Runs `coord` with `words` against it.
    pub(crate) fn coord(&self, words: &[&str]) -> Output {
        run(&[words, &["--addr", &self.address]].concat())
    }

    /// The answer of a reader as JSON.
    pub(crate) fn ask(&self, words: &[&str]) -> serde_json::Value {
        let output = run(&[words, &["--json", "--addr", &self.address]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Submits a job; the id of its run.
    pub(crate) fn submit(&self, job: &Path) -> String {
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

/// Everything in `from`, in `to`.
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
