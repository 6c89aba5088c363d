//! The data of a job at submit: fetched with DVC, taken from a git revision if the job has `data.rev`, listed and hashed.

use std::path::{Path, PathBuf};

use lockstep_common::job::{Data, JobSpec};
use lockstep_common::listing;
use lockstep_common::manifest::{DataFile, Piece};
use lockstep_dvc::Recorded;
use lockstep_host::data::{self, Listed};
use lockstep_host::git;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::provenance::data::{hash_files, no_link_out, refused};
use crate::provenance::tracked;
use crate::terminal::{Exit, Failure, Output};

/// The measured data of a job.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The files and directories that the run records.
    pub(crate) data: Vec<DataFile>,
    /// The lists of the directories: blobs to store.
    pub(crate) lists: Vec<Vec<u8>>,
    /// All files, with the paths of their contents on this machine.
    pub(crate) files: Vec<(Piece, PathBuf)>,
    /// Whether no process of the run would find the files: then they must be stored.
    pub(crate) elsewhere: bool,
    /// Contains some of `files`; removed when dropped.
    _scratch: Option<TempDir>,
}

/// A path of a job: a file, or a directory with all its files.
struct Named {
    path: String,
    is_directory: bool,
    /// Named relative to `path`; a single file is named `path`.
    files: Vec<Listed>,
}

/// Measures the data of `job`, whose paths are relative to `base_dir`. `keep` rejects links that lead out of the data.
pub(crate) fn measure(job: &JobSpec, base_dir: &Path, rehash: bool, keep: bool) -> Result<Measured, Failure> {
    if let Some(revision) = job.data.revision() {
        return at_revision(job, base_dir, revision, rehash);
    }
    let tracked: Vec<PathBuf> = job.data_paths().iter().map(PathBuf::from).collect();
    Handle::current().block_on(tracked::fetch(base_dir, &tracked, job.code.allow_dirty))?;
    in_place(base_dir, &job.data_paths(), matches!(job.data, Data::Files { .. }), rehash, keep)
}

/// Measures `paths`, which are relative to `base_dir`. `directories` allows directories; `keep` rejects links that lead out of them.
pub(crate) fn in_place(
    base_dir: &Path,
    paths: &[&str],
    directories: bool,
    rehash: bool,
    keep: bool,
) -> Result<Measured, Failure> {
    let list = |path: &&str| {
        let at = base_dir.join(path);
        let is_directory = directories && at.is_dir();
        let files = if is_directory {
            data::list_below(&at).map_err(|error| refused(&error))?
        } else {
            vec![Listed::new(base_dir, path)]
        };
        if is_directory && keep {
            no_link_out(&at, &files)?;
        }
        Ok(Named { path: (*path).to_owned(), is_directory, files })
    };
    hash(paths.iter().map(list).collect::<Result<Vec<_>, Failure>>()?, rehash, None)
}

/// Measures the data at `revision` of the work tree that contains each path: the output that DVC recorded, or the file that git has. The
/// work tree does not change. A TorchScript module is code, and is taken from its path.
fn at_revision(job: &JobSpec, base_dir: &Path, revision: &str, rehash: bool) -> Result<Measured, Failure> {
    let scratch = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Local, format!("cannot create a temporary directory: {error}")))?;
    let mut named = Vec::new();
    for path in job.data.paths() {
        let mut files = of_path(&base_dir.join(path.trim_end_matches('/')), base_dir, revision, scratch.path())?;
        let is_directory = files.iter().any(|file| !file.path.is_empty());
        if is_directory && !matches!(job.data, Data::Files { .. }) {
            return Err(Failure::new(Exit::Usage, format!("`{path}` is a directory in `{revision}`, not a file")));
        }
        if !is_directory {
            for file in &mut files {
                path.clone_into(&mut file.path);
            }
        }
        if is_directory {
            files = files.into_iter().map(Listed::of_directory).collect();
        }
        named.push(Named { path: path.to_owned(), is_directory, files });
    }
    let module = job.module_path();
    named.extend(module.map(|path| Named {
        path: path.to_owned(),
        is_directory: false,
        files: vec![Listed::new(base_dir, path)],
    }));
    hash(named, rehash, Some(scratch))
}

/// Hashes the files of all paths together, on all cores.
fn hash(named: Vec<Named>, rehash: bool, scratch: Option<TempDir>) -> Result<Measured, Failure> {
    let files: Vec<&Listed> = named.iter().flat_map(|named| &named.files).collect();
    let mut hashed = hash_files(&files, rehash)?.into_iter();
    let elsewhere = scratch.is_some();
    let mut measured =
        Measured { data: Vec::new(), lists: Vec::new(), files: Vec::new(), elsewhere, _scratch: scratch };
    for Named { path, is_directory, files } in named {
        let own: Vec<DataFile> = hashed.by_ref().take(files.len()).collect();
        measured.files.extend(own.iter().zip(files).map(|(file, listed)| (file.piece(), listed.at)));
        if is_directory {
            let list = listing::encode(&own);
            measured.data.push(DataFile::directory(&path, &list));
            measured.lists.push(list);
        } else {
            measured.data.extend(own);
        }
    }
    Ok(measured)
}

/// The files at or below `path` at `revision`, named relative to `path`. The job, which has `path`, is in `base_dir`.
fn of_path(path: &Path, base_dir: &Path, revision: &str, scratch: &Path) -> Result<Vec<Listed>, Failure> {
    let commit = git::commit_at(path, base_dir, revision).map_err(|error| Failure::caused(Exit::Usage, &error))?;
    let recorded = Recorded::at_revision(path, &commit).map_err(|error| Failure::caused(Exit::Usage, &error))?;
    if let Some(recorded) = recorded {
        let fetched = Handle::current().block_on(recorded.fetch_to_cache(&|_| ()));
        let fetched = fetched.map_err(|error| Failure::caused(Exit::Local, &error))?;
        if fetched.num_downloaded > 0 {
            let (files, bytes) = (fetched.num_downloaded, fetched.bytes_downloaded);
            Output::note(&format!(
                "fetched `{}` at `{revision}` from DVC's remote: {files} files, {bytes} bytes",
                path.display()
            ));
        }
        let below = |name: &str| {
            let whole = if name.is_empty() { recorded.output.clone() } else { recorded.output.join(name) };
            whole
                .strip_prefix(&recorded.path)
                .map_or_else(|_| String::new(), |rest| rest.to_string_lossy().into_owned())
        };
        return Ok(fetched.files.iter().map(|file| Listed::at(below(&file.path), file.cache_path.clone())).collect());
    }
    let found = git::files_at(path, &commit, scratch).map_err(|error| Failure::caused(Exit::Usage, &error))?;
    let found = found.map(|files| files.into_iter().map(|(path, at)| Listed::at(path, at)).collect());
    found.ok_or_else(|| {
        let words = format!("`{}` is neither a file of git nor an output of DVC at `{revision}`", path.display());
        Failure::new(Exit::Usage, words).hint("correct the path, or set `data.rev` to a commit that has it")
    })
}
