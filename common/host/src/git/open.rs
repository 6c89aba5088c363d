//! A repository as git itself sees it, where libgit2 alone sees another one or none.
//!
//! libgit2 takes the directory that holds a separate git directory for the work tree, and reads no sparse and no split index. The
//! top level is where `.git` lies; such an index is rewritten by git, where it is installed, into a file beside.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use git2::{ErrorCode, Index, Repository};
use tempfile::TempPath;

use super::GitError;

/// An open repository.
pub(super) struct Opened {
    repository: Repository,
    /// The index that it was given in place of its own.
    _index: Option<TempPath>,
}

impl Deref for Opened {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

/// The repository that `path` lies in; `None` if it lies in none.
///
/// # Errors
/// `Elsewhere` if the work tree does not contain `path`; `Unsupported`, with what helps, for forms that cannot be read; `Git`.
pub(super) fn discover(path: &Path) -> Result<Option<Opened>, GitError> {
    match Repository::discover(path) {
        Ok(repository) => whole(repository, path).map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// The repository that `path` must lie in.
pub(super) fn require(path: &Path) -> Result<Opened, GitError> {
    let found = Repository::discover(path).map_err(|error| unreadable(path, error))?;
    whole(found, path)
}

/// The repository whose work tree begins at `root`: a submodule.
pub(super) fn open(root: &Path) -> Result<Opened, GitError> {
    whole(Repository::open(root).map_err(|error| unreadable(root, error))?, root)
}

fn whole(repository: Repository, path: &Path) -> Result<Opened, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
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
    let Err(error) = repository.index() else { return Ok(Opened { repository, _index: None }) };
    let Some(own) = rewritten_index(&repository) else { return Err(unreadable(path, error)) };
    let mut index = Index::open(&own).map_err(failed)?;
    repository.set_index(&mut index).map_err(failed)?;
    Ok(Opened { repository, _index: Some(own) })
}

/// The nearest directory from `path` upwards in which `.git` lies.
fn top_level(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    path.ancestors().find(|dir| dir.join(".git").exists()).map(Path::to_owned)
}

/// The index in the form that libgit2 reads, written by git from its own; none if that is not installed, or cannot either.
fn rewritten_index(repository: &Repository) -> Option<TempPath> {
    let file = tempfile::NamedTempFile::new().ok()?.into_temp_path();
    std::fs::copy(repository.path().join("index"), &file).ok()?;
    let done = git()
        .arg("-C")
        .arg(repository.workdir()?)
        .args(["-c", "index.sparse=false", "-c", "core.splitIndex=false", "-c", "core.fsmonitor=false"])
        .args(["update-index", "--no-split-index", "--force-write-index"])
        .env("GIT_INDEX_FILE", file.as_os_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success()).then_some(file)
}

/// The program git, whatever repository the environment names (as in a hook or an alias), and without any repository's hooks.
pub(super) fn git() -> Command {
    let mut command = Command::new("git");
    for name in OF_A_REPOSITORY {
        command.env_remove(name);
    }
    command.args(["-c", "core.hooksPath=/dev/null"]);
    command
}

/// Variables by which git is told of one repository (`git rev-parse --local-env-vars`), but for its configuration.
const OF_A_REPOSITORY: [&str; 13] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// What cannot be read, with what helps where that is known.
fn unreadable(path: &Path, source: git2::Error) -> GitError {
    let said = source.message().to_lowercase();
    let helps = if source.code() == ErrorCode::Owner {
        "somebody else owns it: if you trust it, `git config --global --add safe.directory DIRECTORY`"
    } else if said.contains("refstorage") || said.contains("reftable") {
        "its references are in a form that is not read here: `git refs migrate --ref-format=files` changes that"
    } else if said.contains("object format") || said.contains("objectformat") {
        "its objects have SHA-256 names, and only SHA-1 is read: submit from a repository with `git init --object-format=sha1`"
    } else if said.contains("index") {
        "its index is in a form that is not read here, and git could not rewrite it: `git sparse-checkout reapply --no-sparse-index`, or \
         `git update-index --no-split-index`, changes that"
    } else {
        return GitError::Git { path: path.to_owned(), source };
    };
    GitError::Unsupported { path: path.to_owned(), helps, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::super::tests::git;
    use super::super::{GitError, describe, root, snapshot};

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
    fn git_is_told_of_no_other_repository_by_any_variable_that_it_knows() {
        let known = Command::new("git").args(["rev-parse", "--local-env-vars"]).output().unwrap();
        let known = String::from_utf8(known.stdout).unwrap();
        // The configuration of one call (`git -c`) is the caller's own will.
        let names: BTreeSet<&str> = known.lines().filter(|name| !name.starts_with("GIT_CONFIG")).collect();
        let command = super::git();
        let removed = command.get_envs().filter(|(_, value)| value.is_none()).filter_map(|(name, _)| name.to_str());
        let removed: BTreeSet<&str> = removed.collect();
        assert!(names.contains("GIT_DIR") && names.is_subset(&removed), "{names:?} and {removed:?}");
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
