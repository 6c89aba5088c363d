//! A commit from where its repository is published, without its history.

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

/// Between looks whether it has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of its words that are kept.
const SAID_BYTES: u64 = 16 << 10;

/// What may be fetched from other machines.
#[derive(Clone, Debug)]
pub struct Remotes {
    /// As git names them: `https`, `ssh`, `file`, ..; none: nothing is fetched.
    pub protocols: Vec<String>,
    /// How long one fetch may take.
    pub limit: Duration,
}

impl Remotes {
    /// For a person's own machine: what git itself takes for safe.
    pub fn of_a_person() -> Self {
        let protocols = ["file", "git", "http", "https", "ssh"].map(str::to_owned).to_vec();
        Self { protocols, limit: Duration::from_mins(10) }
    }
}

/// Puts `commit` from `url` into the bare repository at `repository`, which is made if need be; what is there is not
/// fetched again. It asks for no password: who may read is git's own configuration.
///
/// The program `git` does it, with the user's keys, proxies and helpers, and by the protocols of `remotes` alone: a URL comes from
/// whoever submitted the run.
///
/// # Errors
/// `Fetch`, with git's own words; `Git`.
pub fn fetch(repository: &Path, remotes: &Remotes, url: &str, commit: &str) -> Result<(), GitError> {
    let failed = |source| GitError::Git { path: repository.to_owned(), source };
    let id = Oid::from_str(commit).map_err(failed)?;
    let bare = Repository::open_bare(repository).or_else(|_| Repository::init_bare(repository)).map_err(failed)?;
    if bare.find_commit(id).is_ok() {
        return Ok(());
    }
    let refused = |said: String| GitError::Fetch { url: url.to_owned(), commit: commit.to_owned(), said };
    if remotes.protocols.is_empty() {
        return Err(refused("nothing is fetched here (`fetch.protocols` is empty)".to_owned()));
    }
    let mut command = command(repository, remotes);
    command.args(["--depth=1", "--", url, commit]).stdin(Stdio::null());
    run(command, remotes.limit).map_err(refused)
}

/// Puts the objects `ids` from `url` into a new bare repository at `repository`. A relative URL begins at `from`.
///
/// # Errors
/// In git's own words.
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

/// `git fetch` into `repository`, as far as its arguments are always the same.
fn command(repository: &Path, remotes: &Remotes) -> Command {
    let mut command = git();
    command
        .arg("--git-dir")
        .arg(repository)
        // A remote that stops sending must not hold a run for ever.
        .args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"])
        .args(["fetch", "--quiet", "--no-tags"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", remotes.protocols.join(":"))
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15");
    command
}

/// Runs `command` for at most `limit`; in its own words why it failed.
fn run(mut command: Command, limit: Duration) -> Result<(), String> {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // With whatever it starts, so that all of it can be ended.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start `git`: {error}"))?;
    let said = read_in_background(child.stderr.take());
    match wait(&mut child, limit).map_err(|error| format!("cannot wait for `git`: {error}"))? {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(said.join().unwrap_or_default()),
        None => Err(format!("it took longer than {} s", limit.as_secs())),
    }
}

/// Whether it has ended within `limit`; else it is ended, with whatever it has started.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                // It may have ended just now.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// The text that comes, once it has ended: a pipe that nobody reads would stop its writer.
fn read_in_background(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What came before an error is said.
            pipe.take(SAID_BYTES).read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    })
}
