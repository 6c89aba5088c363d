//! A commit from where its repository is published, without its history.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use git2::{Oid, Repository};
use rustix::process::{Pid, Signal, kill_process_group};

use super::command::git;
use super::{GitError, Needed, Sources, needed, restore};

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

/// As [`restore`], and a commit that is in none of the `sources` is fetched into the bare repository at `fetched`, as `remotes` allow: of the
/// tree itself from `remote`, of a submodule from its own URL.
///
/// # Errors
/// As [`restore`] and [`fetch`]; `NoSource` if there is no URL to fetch from.
pub fn restore_or_fetch(
    snapshot: &[u8],
    target: &Path,
    sources: &Sources,
    remote: Option<&str>,
    (fetched, remotes): (&Path, &Remotes),
) -> Result<(), GitError> {
    let mut sources = sources.clone();
    sources.repositories.push(fetched.to_owned());
    let urls =
        needed(snapshot)?.into_iter().map(|Needed { url, commit, .. }| (commit, url.or(remote.map(str::to_owned))));
    let mut urls: BTreeMap<String, Option<String>> = urls.collect();
    loop {
        match restore(snapshot, target, &sources) {
            Err(error @ GitError::NoSource { .. }) => {
                let GitError::NoSource { commit, .. } = &error else { return Err(error) };
                // Each is fetched once.
                match urls.remove(commit).flatten() {
                    Some(url) => fetch(fetched, remotes, &url, commit)?,
                    None => return Err(error),
                }
            }
            restored => return restored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot;
    use super::super::tests::git;
    use super::{Duration, GitError, Remotes, Sources, fetch, needed, restore_or_fetch};

    #[test]
    fn a_commit_is_fetched_once_and_suffices_to_rebuild_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (published, bare) = (dir.path().join("published"), dir.path().join("repositories/bare.git"));
        std::fs::create_dir_all(&published).unwrap();
        git(&published, &["init", "-q"]);
        for text in ["old", "new"] {
            std::fs::write(published.join("file"), text).unwrap();
            git(&published, &["add", "."]);
            git(&published, &["commit", "-q", "-m", text]);
        }
        let kept = snapshot(&published, 1000).unwrap().bytes;
        let commit = needed(&kept).unwrap()[0].commit.clone();
        let url = format!("file://{}", published.display());
        let remotes = Remotes::of_a_person();
        fetch(&bare, &remotes, &url, &commit).unwrap();
        std::fs::rename(&published, dir.path().join("gone")).unwrap();
        fetch(&bare, &remotes, &url, &commit).unwrap();
        let (again, none) = (dir.path().join("again"), Sources::default());
        restore_or_fetch(&kept, &again, &none, None, (&bare, &remotes)).unwrap();
        assert_eq!(std::fs::read_to_string(again.join("file")).unwrap(), "new");
        std::fs::rename(dir.path().join("gone"), &published).unwrap();
        let (again, bare2) = (dir.path().join("fetched"), dir.path().join("other.git"));
        let no_source = restore_or_fetch(&kept, &again, &none, None, (&bare2, &remotes));
        assert!(matches!(no_source, Err(GitError::NoSource { .. })));
        restore_or_fetch(&kept, &again, &none, Some(&url), (&bare2, &remotes)).unwrap();
        assert_eq!(std::fs::read_to_string(again.join("file")).unwrap(), "new");

        let missing = "1".repeat(40);
        let refused = |remotes: &Remotes, url: &str| fetch(&bare, remotes, url, &missing).unwrap_err().to_string();
        let error = refused(&remotes, &url);
        assert!(error.contains(&url) && error.contains("1111") && error.contains("not"), "{error}");
        let none = Remotes { protocols: Vec::new(), limit: remotes.limit };
        assert!(refused(&none, &url).contains("nothing is fetched here"));
        let https = Remotes { protocols: vec!["https".to_owned()], limit: remotes.limit };
        let touched = dir.path().join("touched");
        for url in [&url, published.to_str().unwrap(), &format!("ext::touch {}", touched.display())] {
            assert!(refused(&https, url).contains("not allowed"), "{}", refused(&https, url));
        }
        assert!(refused(&remotes, &format!("ext::touch {}", touched.display())).contains("not allowed"));
        assert!(!touched.exists());
        // A remote that takes a connection and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hasty = Remotes { limit: Duration::from_millis(300), ..remotes };
        let error = refused(&hasty, &format!("git://{}/x", silent.local_addr().unwrap()));
        assert!(error.contains("it took longer than 0 s"), "{error}");
    }
}
