//! Where DVC's own files are read from: the work tree, or a commit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Repository};
use lockstep_host::git::discover;

use crate::error::{DvcError, io_error};

/// The files of a repository of DVC, by their path from its root.
pub(crate) enum Source {
    WorkTree { root: PathBuf },
    Commit { repository: Repository, commit: git2::Oid, prefix: PathBuf, asked: PathBuf, revision: String },
}

impl Source {
    /// The commit that `revision` names, of the git repository that `root` lies in. `asked` is for errors.
    pub(crate) fn of_commit(root: &Path, asked: &Path, revision: &str) -> Result<Self, DvcError> {
        let failed = |source| DvcError::Git { path: asked.to_owned(), revision: revision.to_owned(), source };
        let repository = discover(root).map_err(failed)?;
        let commit =
            repository.revparse_single(revision).and_then(|object| object.peel_to_commit()).map_err(failed)?.id();
        let top = repository.workdir().unwrap_or(repository.path());
        let (top, root) =
            (top.canonicalize().map_err(io_error("find", top))?, root.canonicalize().map_err(io_error("find", root))?);
        let prefix = root.strip_prefix(&top).map(Path::to_owned).unwrap_or_default();
        Ok(Self::Commit { repository, commit, prefix, asked: asked.to_owned(), revision: revision.to_owned() })
    }

    /// A file's text; `None` where there is no such file.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<String>, DvcError> {
        match self {
            Self::WorkTree { root } => {
                let path = root.join(path);
                match fs::read_to_string(&path) {
                    Ok(text) => Ok(Some(text)),
                    Err(error) if is_absent(&error) => Ok(None),
                    Err(source) => Err(io_error("read", &path)(source)),
                }
            }
            Self::Commit { .. } => {
                let Some(object) = self.object(path)? else { return Ok(None) };
                let blob = object.peel_to_blob().map_err(|source| self.failed(source))?;
                Ok(Some(String::from_utf8_lossy(blob.content()).into_owned()))
            }
        }
    }

    /// The names of DVC's single files in a directory, in order; none where there is no such directory.
    pub(crate) fn dvc_files(&self, dir: &Path) -> Result<Vec<String>, DvcError> {
        let mut names: Vec<String> = match self {
            Self::WorkTree { root } => {
                let dir = root.join(dir);
                match fs::read_dir(&dir) {
                    Ok(items) => items
                        .map(|item| item.map(|item| item.file_name().to_string_lossy().into_owned()))
                        .collect::<io::Result<_>>()
                        .map_err(io_error("list", &dir))?,
                    Err(error) if is_absent(&error) => Vec::new(),
                    Err(source) => return Err(io_error("list", &dir)(source)),
                }
            }
            Self::Commit { .. } => match self.object(dir)?.map(|object| object.peel_to_tree()) {
                Some(Ok(tree)) => {
                    tree.iter().map(|entry| String::from_utf8_lossy(entry.name_bytes()).into_owned()).collect()
                }
                _ => Vec::new(),
            },
        };
        names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "dvc"));
        names.sort();
        Ok(names)
    }

    fn object(&self, path: &Path) -> Result<Option<git2::Object<'_>>, DvcError> {
        let Self::Commit { repository, commit, prefix, .. } = self else { return Ok(None) };
        let find = || {
            let tree = repository.find_commit(*commit)?.tree()?;
            let path = prefix.join(path);
            if path.as_os_str().is_empty() {
                return Ok(Some(tree.into_object()));
            }
            match tree.get_path(&path) {
                Ok(entry) => entry.to_object(repository).map(Some),
                Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        find().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: git2::Error) -> DvcError {
        let (path, revision) = match self {
            Self::Commit { asked, revision, .. } => (asked.clone(), revision.clone()),
            Self::WorkTree { root } => (root.clone(), String::new()),
        };
        DvcError::Git { path, revision, source }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}
