//! The data of a job at submit: fetched if it is DVC's, as of another revision if the job says so, listed and hashed.

use std::path::{Path, PathBuf};

use lockstep_common::job::{Data, JobSpec};
use lockstep_common::manifest::DataFile;
use lockstep_dvc::Recorded;
use lockstep_host::{data, git};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::data::{hash_files, refused};
use super::error::Failure;
use super::exit::Exit;
use super::output::Output;
use super::tracked;

/// The data of a job.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) files: Vec<DataFile>,
    /// Where the contents of each of `files` lie now.
    pub(super) places: Vec<PathBuf>,
    /// They are nowhere where a job's process would look: they must be stored.
    pub(super) elsewhere: bool,
    /// Holds some of them.
    _scratch: Option<TempDir>,
}

/// Measures the data of `job`, whose paths begin in `base_dir`.
pub(super) fn measure(job: &JobSpec, base_dir: &Path, rehash: bool) -> Result<Measured, Failure> {
    match job.data.revision() {
        Some(revision) => at_revision(job, base_dir, revision, rehash),
        None => in_place(job, base_dir, rehash),
    }
}

fn in_place(job: &JobSpec, base_dir: &Path, rehash: bool) -> Result<Measured, Failure> {
    let paths = job.data_paths();
    let tracked: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    Handle::current().block_on(tracked::fetch(base_dir, &tracked, job.code.allow_dirty))?;
    let listed = match job.data {
        Data::Files { .. } => data::expand(base_dir, &paths).map_err(|error| refused(&error))?,
        _ => paths.into_iter().map(str::to_owned).collect(),
    };
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let files = hash_files(base_dir, &listed, rehash)?;
    let places = files.iter().map(|file| base_dir.join(&file.path)).collect();
    Ok(Measured { files, places, elsewhere: false, _scratch: None })
}

/// The data as of `revision` of the repository that each path lies in: what DVC recorded in it, or git has of it. The
/// work tree is left alone. A TorchScript module is code, and is taken from where it lies.
fn at_revision(job: &JobSpec, base_dir: &Path, revision: &str, rehash: bool) -> Result<Measured, Failure> {
    let scratch = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Local, format!("cannot make a temporary directory: {error}")))?;
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for path in job.data.paths() {
        let top = path.trim_end_matches('/');
        for (name, at) in of_path(&base_dir.join(top), revision, scratch.path())? {
            found.push((if name.is_empty() { top.to_owned() } else { format!("{top}/{name}") }, at));
        }
    }
    found.extend(job.module_path().map(|path| (path.to_owned(), base_dir.join(path))));
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    let (names, places): (Vec<String>, Vec<PathBuf>) = found.into_iter().unzip();
    let texts = places.iter().map(|place| place.to_str().map(str::to_owned)).collect::<Option<Vec<String>>>();
    let texts = texts.ok_or_else(|| Failure::new(Exit::Usage, "a path of the data is not valid UTF-8"))?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let hashed = hash_files(Path::new("/"), &texts, rehash)?;
    let files = hashed.into_iter().zip(names).map(|(file, path)| DataFile { path, ..file }).collect();
    Ok(Measured { files, places, elsewhere: true, _scratch: Some(scratch) })
}

/// The files at or below `path` in `revision`: what follows `path`, and where the contents lie.
fn of_path(path: &Path, revision: &str, scratch: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let recorded = Recorded::at_revision(path, revision).map_err(|error| Failure::caused(Exit::Usage, &error))?;
    if let Some(recorded) = recorded {
        let fetched = Handle::current().block_on(recorded.fetch_to_cache(&|_| ()));
        let fetched = fetched.map_err(|error| Failure::caused(Exit::Local, &error))?;
        if fetched.num_downloaded > 0 {
            let (files, bytes) = (fetched.num_downloaded, fetched.bytes_downloaded);
            Output::note(&format!(
                "`{}` as of `{revision}`: {files} files, {bytes} bytes from DVC's remote",
                path.display()
            ));
        }
        let below = |name: &str| {
            let whole = if name.is_empty() { recorded.output.clone() } else { recorded.output.join(name) };
            whole
                .strip_prefix(&recorded.path)
                .map_or_else(|_| String::new(), |rest| rest.to_string_lossy().into_owned())
        };
        return Ok(fetched.files.iter().map(|file| (below(&file.path), file.cache_path.clone())).collect());
    }
    let found = git::files_at(path, revision, scratch).map_err(|error| Failure::caused(Exit::Usage, &error))?;
    found.ok_or_else(|| {
        let words = format!("`{}` is in `{revision}` neither as a file of git nor as an output of DVC", path.display());
        Failure::new(Exit::Usage, words).hint("`data.rev` names the commit that the data is taken from")
    })
}
