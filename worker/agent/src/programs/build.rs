//! One build of a user's program: the work tree, the build command, the result.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lockstep_common::manifest::Piece;
use lockstep_common::{Domain, chain};
use lockstep_host::access::{make_private_dirs, make_private_file};
use lockstep_host::git::{self, Remotes, Sources};
use lockstep_net::Dialer;
use lockstep_rpc::control_client::ControlClient;
use lockstep_rpc::{GetBlobRequest, is_busy};
use lockstep_store::BlobStore;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cache::{CacheEntry, Claim, FRESH};
use super::{BuildSpec, Built};
use crate::child::LogWriter;
use crate::child::{LINGER, copy};
use crate::environment::Environment;

/// Pause between two attempts to take a lock that another build has.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a request is retried while the coordinator has too many readers of blobs.
const BUSY_PATIENCE: Duration = Duration::from_mins(5);
/// Last lines of a failed build's output in the error; the log has all lines.
const TOLD_LINES: usize = 30;

/// Builds programs into the cache below `programs`.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    /// Directory of all programs, `programs_dir`.
    pub(crate) programs: PathBuf,
    /// Address of the coordinator, which sends the code if this machine does not see the store.
    pub(crate) join: String,
    /// Protocols and time limit for fetching commits.
    pub(crate) remotes: Remotes,
    /// Environment variables of build commands.
    pub(crate) given: Environment,
}

impl Builder {
    /// Builds `spec`, or takes the program if another agent builds it meanwhile. Returns the log, too.
    pub(crate) async fn build(
        &self,
        spec: &BuildSpec,
        mut log: LogWriter,
        stop: CancellationToken,
    ) -> (LogWriter, Result<Built, String>) {
        let done = async {
            let entry = CacheEntry::new(&self.programs, spec);
            let target =
                std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.programs.join("target"), PathBuf::from);
            make_private_dirs(&self.programs).map_err(|error| cannot("create", &self.programs, &error))?;
            let alone = match claim(&entry, &mut log).await? {
                Ok(alone) => alone,
                Err(built) => return Ok(built),
            };
            // One build at a time in a target directory, which includes writing the tree: cargo takes an artefact that is newer than
            // a source file to be up to date.
            let _lock = lock(&target, &mut log).await?;
            self.materialise(spec, &entry).await?;
            self.run(spec, &entry, &target, &mut log).await?;
            let (spec, rustc) = (spec.clone(), self.rustc(&entry.directory).await);
            blocking(move || keep(&spec, &entry, &target, rustc, alone)).await
        };
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Err("the build was stopped: no process needs it any more".to_owned()),
            done = done => done,
        };
        (log, result)
    }

    /// Writes the work tree as it was at submit. It has a temporary name until it is complete, so that a stopped build that still
    /// writes does not disturb the next one.
    async fn materialise(&self, spec: &BuildSpec, entry: &CacheEntry) -> Result<(), String> {
        let Self { programs, join, remotes, .. } = self;
        let snapshot = blob(join, &spec.store, &spec.tree).await?;
        let packed = match &spec.source {
            Some(source) => Some(blob(join, &spec.store, source).await?),
            None => None,
        };
        let fresh = tempfile::Builder::new().prefix(FRESH).tempdir_in(programs);
        let fresh = fresh.map_err(|error| cannot("create a directory in", programs, &error))?;
        let (repository, remote, remotes) = (programs.join("repositories.git"), spec.remote.clone(), remotes.clone());
        let sources = Sources { packed, repositories: Vec::new() };
        // The writing thread owns the temporary directory: if this build is cancelled, the directory is removed after the last write.
        let fresh = blocking(move || {
            let tree = fresh.path().join("tree");
            let restored =
                git::restore_or_fetch(&snapshot, &tree, &sources, remote.as_deref(), (&repository, &remotes));
            restored.map(|()| fresh).map_err(|error| chain(&error))
        })
        .await?;
        let tree = fresh.path().join("tree");
        let moved = || -> io::Result<()> {
            if entry.dir.exists() {
                fs::remove_dir_all(&entry.dir)?;
            }
            make_private_dirs(&entry.dir)?;
            fs::rename(&tree, &entry.tree)
        };
        moved().map_err(|error| cannot("create", &entry.dir, &error))
    }

    /// Runs the build command in the work tree, with its output in `log`.
    async fn run(
        &self,
        spec: &BuildSpec,
        entry: &CacheEntry,
        target: &Path,
        log: &mut LogWriter,
    ) -> Result<(), String> {
        let command = &spec.program.build;
        if !entry.directory.is_dir() {
            return Err(format!("the work tree has no directory `{}`", spec.directory));
        }
        // A file of this name from an earlier build must not pass for the result of this one.
        let old = made(spec, entry, target);
        if old.exists() {
            fs::remove_file(&old).map_err(|error| cannot("delete", &old, &error))?;
        }
        log.write(format!("[building `{}` of commit {}: {command}]\n", spec.program.bin, spec.commit).as_bytes());
        let started = || -> io::Result<_> {
            let (read, write) = io::pipe()?;
            let output = pipe::Receiver::from_owned_fd(read.into())?;
            let mut shell = Command::new("/bin/sh");
            self.given.apply(&mut shell);
            let child = shell
                .args(["-c", command])
                .current_dir(&entry.directory)
                .env("CARGO_TARGET_DIR", target)
                .env("CARGO_TERM_COLOR", "never")
                .env("CARGO_TERM_PROGRESS_WHEN", "never")
                .stdin(Stdio::null())
                .stdout(write.try_clone()?)
                .stderr(write)
                .process_group(0)
                .spawn()?;
            Ok((output, child))
        };
        let (mut output, mut child) = started().map_err(|error| format!("cannot start `{command}`: {error}"))?;
        // Dropped with this future when the build is stopped: kills the command and its children.
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let status = tokio::select! {
            status = child.wait() => status,
            () = copy(&mut output, log) => child.wait().await,
        };
        let status = status.map_err(|error| format!("cannot wait for `{command}`: {error}"))?;
        group.0 = None;
        // The command has ended; a child that it left running may hold the pipe open.
        timeout(LINGER, copy(&mut output, log)).await.ok();
        if status.success() {
            log.write(b"[built]\n");
            return Ok(());
        }
        let said = log.last_lines();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n");
        Err(format!("`{command}` ended with {status}; its last output:\n{last}"))
    }

    /// The version of `rustc` in this directory; `None` if it does not run.
    async fn rustc(&self, directory: &Path) -> Option<String> {
        let mut rustc = Command::new("rustc");
        self.given.apply(&mut rustc);
        let output = rustc.arg("--version").current_dir(directory).output().await.ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Waits for the exclusive lock of an entry. The inner `Err` is the program, if another agent has built it meanwhile.
async fn claim(entry: &CacheEntry, log: &mut LogWriter) -> Result<Result<File, Built>, String> {
    let mut told = false;
    loop {
        match entry.claim().map_err(|error| cannot("lock", &entry.dir, &error))? {
            Claim::Exclusive(alone) => return Ok(Ok(alone)),
            Claim::Built(built) => return Ok(Err(built)),
            Claim::Taken => {}
        }
        if !told {
            log.write(b"[waiting: another agent builds this program, or a process uses its old directory]\n");
            told = true;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// Waits for the exclusive lock of a target directory.
async fn lock(target: &Path, log: &mut LogWriter) -> Result<File, String> {
    fs::create_dir_all(target).map_err(|error| cannot("create", target, &error))?;
    let path = target.join(".lockstep-build");
    let open = make_private_file(&path);
    let file = open.map_err(|error| cannot("open", &path, &error))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(cannot("lock", &path, &error)),
        }
        if !told {
            log.write(b"[waiting for another build on this machine]\n");
            told = true;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// Reads a blob from the store, if this machine sees it, or from the coordinator.
async fn blob(join: &str, store: &Path, piece: &Piece) -> Result<Vec<u8>, String> {
    if store.is_dir() {
        let (store, piece) = (store.to_owned(), piece.clone());
        let read =
            blocking(move || BlobStore::existing(&store).and_then(|store| store.get(&piece)).map_err(|e| chain(&e)));
        if let Ok(bytes) = read.await {
            return Ok(bytes);
        }
    }
    let failed = |error: &dyn std::error::Error| format!("cannot fetch the run's code from {join}: {}", chain(error));
    let dialer = Dialer::to(join).ok_or_else(|| format!("`{join}` is not an address: expected HOST:PORT"))?;
    let channel = dialer.connect().await.map_err(|error| failed(&error))?;
    let mut client = ControlClient::new(channel);
    let request = GetBlobRequest { blob: Some(piece.into()), offset: 0 };
    let begun = Instant::now();
    let mut chunks = loop {
        match client.get_blob(request.clone()).await {
            Ok(answer) => break answer.into_inner(),
            // Many nodes ask for the same program at once.
            Err(status) if is_busy(&status) && begun.elapsed() < BUSY_PATIENCE => sleep(Duration::from_secs(1)).await,
            Err(status) => return Err(failed(&status)),
        }
    };
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.map_err(|status| failed(&status))? {
        bytes.extend_from_slice(&chunk.data);
    }
    let found = Domain::Blob.digest(&bytes);
    if found == piece.digest {
        return Ok(bytes);
    }
    Err(format!("the coordinator at {join} sent wrong bytes for blob `{}`: their digest is `{found}`", piece.digest))
}

/// Path at which the build command creates the program.
fn made(spec: &BuildSpec, entry: &CacheEntry, target: &Path) -> PathBuf {
    let bin = &spec.program.bin;
    if bin.contains('/') { entry.directory.join(bin) } else { target.join("release").join(bin) }
}

/// A process and its children; dropping this kills them.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Fails if the group has just ended.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Copies the program into its cache entry, with the facts of the build.
fn keep(
    spec: &BuildSpec,
    entry: &CacheEntry,
    target: &Path,
    rustc: Option<String>,
    alone: File,
) -> Result<Built, String> {
    let bin = &spec.program.bin;
    let program = made(spec, entry, target);
    if !program.is_file() {
        let words = format!("`{}` did not create `{}`", spec.program.build, program.display());
        return Err(format!(
            "{words}: set `program.bin` to a binary of this package, or to the path that the build writes"
        ));
    }
    let name = Path::new(bin).file_name().unwrap_or_default().to_string_lossy();
    let mut facts = BTreeMap::from([
        ("program".to_owned(), name.into_owned()),
        ("program.build".to_owned(), spec.program.build.clone()),
    ]);
    facts.extend(rustc.map(|version| ("program.rustc".to_owned(), version)));
    let above = entry.directory.ancestors().take_while(|dir| dir.starts_with(&entry.tree));
    if let Some(lock) = above.map(|dir| dir.join("Cargo.lock")).find_map(|path| fs::read(path).ok()) {
        facts.insert("program.cargo_lock".to_owned(), Domain::Blob.digest(&lock).to_hex());
    }
    entry.keep(&program, &facts, alone).map_err(|error| cannot("copy", &program, &error))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|_| "the build panicked".to_owned())?
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} `{}`: {error}", path.display())
}
