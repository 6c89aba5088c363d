//! Fetches a commit from a remote, without its history.

use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use git2::{Oid, Repository};
use rustix::process::{Pid, Signal, kill_process_group};

use super::command::git;
use super::error::GitError;

/// Time between two checks whether git has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of git's error messages that are kept.
const SAID_BYTES: u64 = 16 << 10;

/// Limits on fetches from remotes.
#[derive(Clone, Debug)]
pub struct Remotes {
    /// Allowed protocols, with git's names: `https`, `ssh`, `file`, ... If empty, nothing is fetched.
    pub protocols: Vec<String>,
    /// Time limit of one fetch.
    pub limit: Duration,
}

impl Remotes {
    /// Limits for a person's own machine: the protocols that git itself considers safe, 10 minutes.
    pub fn of_a_person() -> Self {
        let protocols = ["file", "git", "http", "https", "ssh"].map(str::to_owned).to_vec();
        Self { protocols, limit: Duration::from_mins(10) }
    }
}

/// Fetches `commit` from `url` into the bare repository at `repository`, which is created if it does not exist. A commit that the
/// repository has is not fetched again. There is no password prompt: credentials come from git's configuration.
///
/// The program `git` fetches, with the user's keys, proxies and helpers. Only the protocols of `remotes` are allowed, because the URL
/// comes from the user who submitted the run.
///
/// # Errors
/// `Fetch`, with git's error message; `Git`.
pub fn fetch(repository: &Path, remotes: &Remotes, url: &str, commit: &str) -> Result<(), GitError> {
    let failed = |source| GitError::Git { path: repository.to_owned(), source };
    let id = Oid::from_str(commit).map_err(failed)?;
    let bare = Repository::open_bare(repository).or_else(|_| Repository::init_bare(repository)).map_err(failed)?;
    if bare.find_commit(id).is_ok() {
        return Ok(());
    }
    let refused = |said: String| GitError::Fetch { url: url.to_owned(), commit: commit.to_owned(), said };
    if remotes.protocols.is_empty() {
        return Err(refused("fetching is disabled on this node (`fetch.protocols` is empty)".to_owned()));
    }
    let mut command = command(repository, remotes);
    command.args(["--depth=1", "--", url, commit]).stdin(Stdio::null());
    run(command, remotes.limit).map_err(refused)
}

/// Fetches the objects `ids` from `url` into a new bare repository at `repository`. A relative URL is relative to `from`.
///
/// # Errors
/// Git's error message.
pub(super) fn fetch_objects(
    repository: &Path,
    remotes: &Remotes,
    url: &str,
    ids: &[Oid],
    from: &Path,
) -> Result<(), String> {
    Repository::init_bare(repository).map_err(|error| error.message().to_owned())?;
    let listed = || {
        let mut list = tempfile::tempfile()?;
        ids.iter().try_for_each(|id| writeln!(list, "{id}"))?;
        list.rewind().map(|()| list)
    };
    let list = listed().map_err(|error| format!("cannot write a temporary file: {error}"))?;
    let mut command = command(repository, remotes);
    command.args(["--no-write-fetch-head", "--stdin", "--", url]).stdin(list).current_dir(from);
    run(command, remotes.limit)
}

/// A `git fetch` into `repository`, with the arguments that all fetches have.
fn command(repository: &Path, remotes: &Remotes) -> Command {
    let mut command = git();
    command
        .arg("--git-dir")
        .arg(repository)
        // A remote that stops sending must not block a run forever.
        .args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"])
        .args(["fetch", "--quiet", "--no-tags"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", remotes.protocols.join(":"))
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15");
    command
}

/// Runs `command` for at most `limit`.
///
/// # Errors
/// The command's error message.
fn run(mut command: Command, limit: Duration) -> Result<(), String> {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A process group, so that the processes that git starts can be ended, too.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start `git`: {error}"))?;
    let said = read_in_background(child.stderr.take());
    match wait(&mut child, limit).map_err(|error| format!("cannot wait for `git`: {error}"))? {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(said.join().unwrap_or_default()),
        None => Err(format!("it timed out after {} s", limit.as_secs())),
    }
}

/// Waits up to `limit` for `child` to end. Returns `None` at the limit, after killing it and the processes that it started.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                // An error means that it has just ended.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Reads `pipe` on a thread of its own, because a full pipe would block its writer.
fn read_in_background(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // The bytes before a read error are kept.
            pipe.take(SAID_BYTES).read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    })
}
