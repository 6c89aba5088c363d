//! Opens a repository in cases where libgit2 alone would read another one or none.
//!
//! For a separate git directory, libgit2 takes the parent of that directory for the work tree; here the work tree is the directory with
//! `.git`. libgit2 cannot read a sparse or split index; git converts it (see [`super::index`]). A repository's own configuration cannot
//! hide changes of files, because [`TRUTH`] overrides it.

use std::fs;
use std::ops::Deref;
use std::path::Path;

use git2::{ConfigLevel, ErrorClass, ErrorCode, Index, Oid, Repository};
use tempfile::TempDir;

use super::super::error::GitError;
use super::missing::{self, Kinds};
use super::owner::{self, top_level};
use super::{index, sound};

/// Configuration that overrides the repository's own: modes, links and names are compared, and changed times are not ignored.
const TRUTH: &str =
    "[core]\n fileMode = true\n symlinks = true\n ignoreCase = false\n trustctime = true\n ignoreStat = false\n";

/// An open repository.
pub(in crate::git) struct Opened {
    repository: Repository,
    /// Temporary directories that it uses: for the overriding configuration, an index, fetched objects.
    beside: Vec<TempDir>,
}

impl Deref for Opened {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

impl Opened {
    /// Fetches the objects of `commit` that a partial clone lacks.
    ///
    /// # Errors
    /// `Partial`, `Git`.
    pub(in crate::git) fn complete(&mut self, commit: Oid, kinds: Kinds) -> Result<(), GitError> {
        self.beside.extend(missing::complete(&self.repository, commit, kinds)?);
        Ok(())
    }

    /// As [`Opened::complete`], for the objects `ids` and all objects below them.
    pub(in crate::git) fn complete_objects(&mut self, ids: &[Oid]) -> Result<(), GitError> {
        self.beside.extend(missing::complete_objects(&self.repository, ids, Kinds::All)?);
        Ok(())
    }
}

/// The repository that contains `path`; `None` if there is none.
///
/// # Errors
/// `Elsewhere` if the work tree does not contain `path`; `Broken`; `Unsupported` for formats that cannot be read; `Git`.
pub(in crate::git) fn discover(path: &Path) -> Result<Option<Opened>, GitError> {
    sound::around(path)?;
    match owner::discover(path) {
        Ok(repository) => whole(repository, path).map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// The repository that contains `path`; an error if there is none.
pub(in crate::git) fn require(path: &Path) -> Result<Opened, GitError> {
    sound::around(path)?;
    let found = owner::discover(path).map_err(|error| unreadable(path, error))?;
    whole(found, path)
}

/// The repository whose work tree has the root `root`, for example a submodule.
pub(in crate::git) fn open(root: &Path) -> Result<Opened, GitError> {
    sound::at(root)?;
    whole(owner::open(root).map_err(|error| unreadable(root, error))?, root)
}

/// The repository that contains `path`, for access to its commits only. Neither its work tree nor its index is read.
pub(in crate::git) fn history(path: &Path) -> Result<Opened, GitError> {
    sound::around(path)?;
    without_index(owner::discover(path).map_err(|error| unreadable(path, error))?, path)
}

/// As [`history`], for the repository at `path` itself.
pub(in crate::git) fn history_at(path: &Path) -> Result<Opened, GitError> {
    sound::at(path)?;
    without_index(owner::open(path).map_err(|error| unreadable(path, error))?, path)
}

/// Replaces an unreadable index by an empty one, because libgit2 searches the index for attributes.
fn without_index(repository: Repository, path: &Path) -> Result<Opened, GitError> {
    if repository.index().is_err() {
        let set = Index::new().and_then(|mut empty| repository.set_index(&mut empty));
        set.map_err(|source| GitError::Git { path: path.to_owned(), source })?;
    }
    Ok(Opened { repository, beside: Vec::new() })
}

fn whole(repository: Repository, path: &Path) -> Result<Opened, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let io = |source| GitError::Io { path: std::env::temp_dir(), source };
    let above = tempfile::tempdir().map_err(io)?;
    let file = above.path().join("config");
    fs::write(&file, TRUTH).map_err(io)?;
    repository.config().and_then(|mut config| config.add_file(&file, ConfigLevel::App, true)).map_err(failed)?;
    if let (Some(top), Some(work)) = (top_level(path), repository.workdir())
        && work.canonicalize().ok().as_ref() != Some(&top)
    {
        let configured = repository.config().and_then(|config| config.get_path("core.worktree"));
        if configured.is_err() {
            repository.set_workdir(&top, false).map_err(failed)?;
        } else if !path.canonicalize().is_ok_and(|path| work.canonicalize().is_ok_and(|work| path.starts_with(work))) {
            return Err(GitError::Elsewhere { path: path.to_owned(), work_tree: work.to_owned() });
        }
    }
    let mut beside = vec![above];
    match repository.index() {
        Ok(_) => beside.extend(index::distrust(&repository).map_err(io)?),
        Err(error) => beside.push(index::rewrite(&repository).map_err(failed)?.ok_or_else(|| unreadable(path, error))?),
    }
    sound::rules(&repository)?;
    Ok(Opened { repository, beside })
}

/// The commit at HEAD. `path` is for error messages.
///
/// # Errors
/// `NoCommit`, `Git`.
pub(in crate::git) fn head_of(repository: &Repository, path: &Path) -> Result<Oid, GitError> {
    match repository.head().and_then(|head| head.peel_to_commit()) {
        Ok(commit) => Ok(commit.id()),
        Err(error) if error.code() == ErrorCode::UnbornBranch => Err(GitError::NoCommit { path: path.to_owned() }),
        Err(source) => Err(GitError::Git { path: path.to_owned(), source }),
    }
}

/// The error of a repository that libgit2 cannot open, with advice for known causes.
fn unreadable(path: &Path, source: git2::Error) -> GitError {
    let said = source.message().to_lowercase();
    let helps = if source.code() == ErrorCode::Owner {
        "another user owns it; if you trust it, run `git config --global --add safe.directory DIRECTORY`"
    } else if said.contains("refstorage") || said.contains("reftable") {
        "the format of its references is not supported; run `git refs migrate --ref-format=files`"
    } else if said.contains("object format") || said.contains("objectformat") {
        "its objects have SHA-256 names, and only SHA-1 is supported; submit from a repository made by `git init --object-format=sha1`"
    } else if said.contains("unsupported extension") {
        "it has an unsupported extension, which `git config --get-regexp '^extensions'` prints; unset it if git works without it, or \
         submit from a new clone"
    } else if source.class() == ErrorClass::Index {
        "only git can read the format of its index, and `git` is not in PATH or could not convert it; run `git sparse-checkout reapply \
         --no-sparse-index` or `git update-index --no-split-index`"
    } else {
        return GitError::Git { path: path.to_owned(), source };
    };
    GitError::Unsupported { path: path.to_owned(), helps, source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::super::testing::git;
    use super::super::super::{GitError, describe, root, snapshot};

    #[test]
    fn a_tree_beside_its_git_directory_is_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (par, project) = (dir.path().join("par"), dir.path().join("par/project"));
        fs::create_dir_all(par.join("private")).unwrap();
        fs::write(par.join("private/notes"), "secret").unwrap();
        git(&par, &["init", "-q", "--separate-git-dir=project.git", "project"]);
        fs::create_dir(project.join("d")).unwrap();
        fs::write(project.join("d/f"), "1").unwrap();
        git(&project, &["add", "."]);
        git(&project, &["commit", "-q", "-m", "x"]);
        let tree = describe(&project.join("d")).unwrap().unwrap();
        assert_eq!((tree.changed.len(), tree.version.directory.as_str()), (0, "d"));
        assert_eq!(root(&project).unwrap().canonicalize().unwrap(), project.canonicalize().unwrap());
        assert_eq!(snapshot(&project, 1000).unwrap().files, 0);
        git(&project, &["config", "core.worktree", par.join("private").to_str().unwrap()]);
        let error = describe(&project).unwrap_err();
        assert!(matches!(error, GitError::Elsewhere { .. }), "{error}");
    }

    #[test]
    fn sparse_and_split_indexes_are_read_and_what_cannot_be_is_told_what_helps() {
        for (form, change) in [
            ("sparse", &["sparse-checkout", "set", "--cone", "--sparse-index", "a"][..]),
            ("split", &["update-index", "--split-index"][..]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            git(dir.path(), &["init", "-q"]);
            for name in ["a", "b"] {
                fs::create_dir(dir.path().join(name)).unwrap();
                fs::write(dir.path().join(name).join("f"), name).unwrap();
            }
            git(dir.path(), &["add", "."]);
            git(dir.path(), &["commit", "-q", "-m", "x"]);
            git(dir.path(), change);
            assert_eq!(describe(dir.path()).unwrap().unwrap().changed, [] as [&str; 0], "{form}");
            let hook = dir.path().join(".git/hooks/post-index-change");
            fs::create_dir_all(hook.parent().unwrap()).unwrap();
            fs::write(&hook, "#!/bin/sh\ntouch ran\n").unwrap();
            fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(snapshot(dir.path(), 1000).unwrap().files, 0, "{form}");
            assert!(!dir.path().join("ran").exists(), "{form}: a hook of the repository ran");
            fs::write(dir.path().join("a/f"), "other").unwrap();
            assert_eq!(describe(dir.path()).unwrap().unwrap().changed, ["a/f"], "{form}");
        }
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "--object-format=sha256"]);
        fs::write(dir.path().join("f"), "1").unwrap();
        git(dir.path(), &["add", "."]);
        git(dir.path(), &["commit", "-q", "-m", "x"]);
        let error = describe(dir.path()).unwrap_err().to_string();
        assert!(error.contains("SHA-256"), "{error}");
    }

    #[test]
    fn in_the_middle_of_a_rebase_a_clean_tree_is_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q"]);
        for text in ["1", "2"] {
            fs::write(dir.path().join("f"), text).unwrap();
            git(dir.path(), &["add", "."]);
            git(dir.path(), &["commit", "-q", "-m", text]);
        }
        git(dir.path(), &["-c", "sequence.editor=sed -i s/^pick/edit/", "rebase", "-q", "-i", "HEAD~1"]);
        assert_eq!(snapshot(dir.path(), 1000).unwrap().files, 0);
        fs::write(dir.path().join("f"), "3").unwrap();
        let error = snapshot(dir.path(), 1000).unwrap_err().to_string();
        assert!(error.contains("in the middle of a rebase"), "{error}");
    }
}
