//! `coord checkout`: rebuilds the work tree from which a run was submitted.

use std::path::{Path, PathBuf};

use lockstep_common::manifest::DataFile;
use lockstep_core::view::RunView;
use lockstep_host::data::{self, DataHashError};
use lockstep_host::git::{self, GitError, Remotes, Sources};
use serde::Serialize;

use crate::args::CheckoutArguments;
use crate::connection::Client;
use crate::terminal::{Exit, Failure, Output};

/// Most data files of a kind that are listed.
const NAMED_FILES: usize = 20;

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    run: String,
    commit: String,
    /// The absolute root of the tree.
    directory: PathBuf,
    /// The directory in the tree to which paths in the job are relative.
    job_directory: PathBuf,
    /// All data and model files of the run, also those that the tree lacks.
    data: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    file: DataFile,
    /// `there`, `missing`, or `other` if the tree has other contents.
    state: &'static str,
}

pub(crate) async fn checkout(arguments: CheckoutArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    let view = client.run(&arguments.run).await?;
    let run = view.row.id.to_string();
    let directory = arguments.directory.unwrap_or_else(|| format!("run-{run}").into());
    let Rebuilt { commit, directory, job_directory } =
        rebuild(&mut client, &view, &directory, arguments.repositories).await?;
    let files = client.listed(&view.data).await?;
    let data = tokio::task::block_in_place(|| files.iter().map(|file| found(&job_directory, file)).collect());
    let report = Report { run, commit, directory, job_directory, data };
    if arguments.reader.json {
        out.json(&report);
    } else {
        print(&report, out);
    }
    Ok(Exit::Done)
}

/// The rebuilt work tree of a run.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    commit: String,
    /// The absolute root of the tree.
    pub(crate) directory: PathBuf,
    /// The directory in the tree to which paths in the job are relative.
    pub(crate) job_directory: PathBuf,
}

impl Rebuilt {
    /// An empty directory, for a run without a work tree.
    pub(crate) fn empty(directory: &Path) -> Result<Self, Failure> {
        let made = std::fs::create_dir_all(directory).and_then(|()| std::fs::canonicalize(directory));
        let directory = made.map_err(|error| {
            Failure::new(Exit::Local, format!("cannot create directory `{}`: {error}", directory.display()))
        })?;
        Ok(Self { commit: String::new(), job_directory: directory.clone(), directory })
    }
}

/// Rebuilds the work tree of a run in `directory`. A commit that was not stored with the run comes from `repositories`, from the clones of
/// the current directory and of the job, or from its remote.
pub(crate) async fn rebuild(
    client: &mut Client,
    view: &RunView,
    directory: &Path,
    mut repositories: Vec<PathBuf>,
) -> Result<Rebuilt, Failure> {
    let run = &view.row.id;
    let Some(code) = &view.code else {
        return Err(Failure::new(Exit::Refused, format!("run `{run}` was not submitted from a git work tree")));
    };
    let Some(tree) = &code.tree else {
        let words = format!("the work tree of run `{run}` was not stored; its commit is {}", code.commit);
        return Err(Failure::new(Exit::Refused, words));
    };
    let snapshot = client.blob(tree).await?;
    let packed = match &code.source {
        Some(source) => Some(client.blob(source).await?),
        None => None,
    };
    repositories.extend([PathBuf::from("."), view.base_dir.clone().into()].into_iter().filter_map(|at| git::root(&at)));
    let (remote, to) = (code.remote.clone(), directory.to_owned());
    // A commit that no repository here has is fetched from its remote, into this directory.
    let scratch = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Local, format!("cannot create a temporary directory: {error}")))?;
    let restored = tokio::task::spawn_blocking(move || {
        let sources = Sources { packed, repositories };
        let (fetched, remotes) = (scratch.path().join("fetched.git"), Remotes::of_a_person());
        git::restore_or_fetch(&snapshot, &to, &sources, remote.as_deref(), (&fetched, &remotes))
    });
    let remote = code.remote.as_deref();
    restored
        .await
        .map_err(|_| Failure::new(Exit::Local, "rebuilding the work tree panicked"))?
        .map_err(|error| refused(&error, remote))?;
    let directory = std::fs::canonicalize(directory)
        .map_err(|error| Failure::new(Exit::Local, format!("cannot resolve `{}`: {error}", directory.display())))?;
    let job_directory = directory.join(&code.directory);
    Ok(Rebuilt { commit: code.commit.clone(), directory, job_directory })
}

fn refused(error: &GitError, remote: Option<&str>) -> Failure {
    let failure = Failure::caused(
        match error {
            GitError::Occupied { .. } => Exit::Usage,
            GitError::NoSource { .. } | GitError::Fetch { .. } => Exit::NotFound,
            _ => Exit::Local,
        },
        error,
    );
    match (error, remote) {
        (GitError::NoSource { .. }, Some(remote)) => {
            failure.hint(format!("clone it with `git clone {remote}`, and pass the clone with `--repository DIR`"))
        }
        (GitError::Fetch { .. }, _) | (GitError::NoSource { .. }, None) => {
            failure.hint("pass a clone that has the commit with `--repository DIR`")
        }
        _ => failure,
    }
}

/// Compares a data file in the tree with the run's.
fn found(job_directory: &Path, file: &DataFile) -> Found {
    let state = match data::verify(job_directory, std::slice::from_ref(file)) {
        Ok(()) => "there",
        Err(DataHashError::Missing { .. }) => "missing",
        Err(_) => "other",
    };
    Found { file: file.clone(), state }
}

fn print(report: &Report, out: &mut Output) {
    out.line(&format!("{}", report.directory.display()));
    let below = report.job_directory.strip_prefix(&report.directory).unwrap_or(Path::new(""));
    if !below.as_os_str().is_empty() {
        Output::note(&format!("paths in the job are relative to `{}`", below.display()));
    }
    let (there, not): (Vec<&Found>, Vec<&Found>) = report.data.iter().partition(|found| found.state == "there");
    for Found { file, state } in there.into_iter().take(NAMED_FILES).chain(not.iter().copied().take(NAMED_FILES)) {
        let what = match *state {
            "there" => "is in the tree".to_owned(),
            "missing" => format!("is not in the tree: {} bytes, digest {}", file.bytes, file.digest),
            _ => format!("has other contents in the tree: expected {} bytes, digest {}", file.bytes, file.digest),
        };
        Output::note(&format!("data `{}` {what}", file.path));
    }
    if report.data.len() > NAMED_FILES {
        Output::note(&format!("of {} data files, {} are missing or have other contents", report.data.len(), not.len()));
    }
}
