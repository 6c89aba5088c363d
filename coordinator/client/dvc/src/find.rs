//! Which output of DVC a path is, or lies in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::normalize;
use crate::error::{DvcError, io_error};
use crate::hash::{Generation, Md5};
use crate::record::{self, Contents, Output, Unusable};
use crate::source::Source;

/// What DVC recorded of a file or directory, or of a tracked directory that it lies in.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The path asked for.
    pub path: PathBuf,
    /// The output that it is or lies in.
    pub output: PathBuf,
    /// Whether the output is a directory.
    pub is_directory: bool,
    /// The output's MD5: of a file's contents, or of a directory's listing.
    pub md5: Md5,
    /// The output's bytes, all files together, if DVC recorded them.
    pub size: Option<u64>,
    /// How many files a directory has, if DVC recorded it.
    pub num_files: Option<u64>,
    /// Which DVC recorded it.
    pub generation: Generation,
    /// The `.dvc` file or `dvc.lock` that records it.
    pub recorded_in: PathBuf,
    /// The directory that holds `.dvc`.
    pub root: PathBuf,
    pub(crate) is_executable: bool,
    pub(crate) remote: Option<String>,
}

/// An output of DVC in the work tree. The file or directory itself may be absent.
#[derive(Clone, Debug)]
pub struct Tracked(pub(crate) Recorded);

impl Tracked {
    /// The output that `path` is or lies in; `None` if DVC tracks neither.
    ///
    /// A `.dvc` file or `dvc.lock` counts in the path's directory and in those above it, up to the one that holds `.dvc`.
    /// Not found are outputs that a file elsewhere puts there by `wdir` or `..`, and those of stages whose `wdir` is a
    /// template.
    pub fn find(path: &Path) -> Result<Option<Self>, DvcError> {
        let path = absolute(path)?;
        let Some(root) = root_of(&path) else { return Ok(None) };
        let source = Source::WorkTree { root: root.clone() };
        Ok(find_in(&source, &root, &path)?.map(Self))
    }

    /// What DVC recorded of it.
    pub fn recorded(&self) -> &Recorded {
        &self.0
    }
}

impl Recorded {
    /// The output that `path` was or lay in, as of `revision` of the git repository that holds it: any name that git
    /// knows a commit by. `None` if DVC did not track it then. Where cache and remote are is still read from the work tree.
    pub fn at_revision(path: &Path, revision: &str) -> Result<Option<Self>, DvcError> {
        let path = absolute(path)?;
        let Some(root) = root_of(&path) else { return Ok(None) };
        find_in(&Source::of_commit(&root, &path, revision)?, &root, &path)
    }

    /// That no directory on the way to `path`, which lies below the root, is a link: what is behind one is not the repository's. A file
    /// itself may be one, into DVC's cache.
    pub(crate) fn no_link_to(&self, path: &Path) -> Result<(), DvcError> {
        let above = path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root) && *dir != self.root);
        match above.filter(|dir| dir.is_symlink()).last() {
            Some(link) => Err(DvcError::BehindLink { path: path.to_owned(), link: link.to_owned() }),
            None => Ok(()),
        }
    }

    /// What of the output was asked for: a path in it, empty for all of it.
    pub(crate) fn inside(&self) -> Result<String, DvcError> {
        let inside = self.path.strip_prefix(&self.output).unwrap_or(Path::new(""));
        let unknown = || DvcError::NotInListing { path: self.path.clone(), output: self.output.clone() };
        inside.to_str().map(str::to_owned).ok_or_else(unknown)
    }
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, DvcError> {
    std::path::absolute(path).map(|path| normalize(&path)).map_err(io_error("find", path))
}

/// The nearest directory above `path` that holds `.dvc`.
pub(crate) fn root_of(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|dir| fs::metadata(dir.join(".dvc")).is_ok_and(|is| is.is_dir())).map(Path::to_owned)
}

fn find_in(source: &Source, root: &Path, path: &Path) -> Result<Option<Recorded>, DvcError> {
    let Ok(relative) = path.strip_prefix(root) else { return Ok(None) };
    for dir in relative.ancestors().skip(1) {
        let below = relative.strip_prefix(dir).ok().and_then(|below| below.iter().next());
        let likely = below.map(|name| format!("{}.dvc", name.to_string_lossy()));
        let names = source.dvc_files(dir)?;
        // `data.dvc` first for `data`: most often it is that, and the others need not be read.
        let (first, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| Some(name) == likely.as_ref());
        for name in first.into_iter().chain(rest).chain(["dvc.lock".to_owned()]) {
            let file = dir.join(&name);
            let Some(text) = source.read(&file)? else { continue };
            let shown = root.join(&file);
            let outputs = if name == "dvc.lock" {
                let yaml = source.read(&dir.join("dvc.yaml"))?.unwrap_or_default();
                record::of_lock(&text, &yaml, dir, &shown)?
            } else {
                record::of_dvc_file(&text, dir, &shown)?
            };
            for output in outputs {
                if let Some(recorded) = accept(output, relative, root, path, &shown)? {
                    return Ok(Some(recorded));
                }
            }
        }
    }
    Ok(None)
}

/// The output, if it is what was asked for or holds it.
fn accept(
    output: Output,
    relative: &Path,
    root: &Path,
    path: &Path,
    file: &Path,
) -> Result<Option<Recorded>, DvcError> {
    if !relative.starts_with(&output.path) {
        return Ok(None);
    }
    let (file, written) = (file.to_owned(), output.written);
    let Contents { md5, is_directory, is_executable, generation, size, num_files } = match output.contents {
        Ok(contents) => contents,
        Err(Unusable::NoMd5) => return Err(DvcError::NotRecorded { file, output: written }),
        Err(Unusable::Unsupported(what)) => return Err(DvcError::UnsupportedRecord { file, output: written, what }),
    };
    if !is_directory && relative != output.path {
        return Ok(None);
    }
    Ok(Some(Recorded {
        path: path.to_owned(),
        output: root.join(output.path),
        is_directory,
        md5,
        size,
        num_files,
        generation,
        recorded_in: file,
        root: root.to_owned(),
        is_executable,
        remote: output.remote,
    }))
}
