//! A commit from where its repository is published, without its history.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use git2::{Oid, Repository};

use super::{GitError, Needed, Sources, needed, restore};

/// Puts `commit` from `url` into the bare repository at `repository`, which is made if need be; what is there is not
/// fetched again. It asks for no password: who may read is git's own configuration.
///
/// The program `git` does it, with the user's keys, proxies and helpers.
///
/// # Errors
/// `Fetch`, with git's own words; `Git`.
pub fn fetch(repository: &Path, url: &str, commit: &str) -> Result<(), GitError> {
    let failed = |source| GitError::Git { path: repository.to_owned(), source };
    let id = Oid::from_str(commit).map_err(failed)?;
    let bare = Repository::open_bare(repository).or_else(|_| Repository::init_bare(repository)).map_err(failed)?;
    if bare.find_commit(id).is_ok() {
        return Ok(());
    }
    let refused = |said: String| GitError::Fetch { url: url.to_owned(), commit: commit.to_owned(), said };
    let output = Command::new("git")
        .current_dir(repository)
        // A remote that stops sending must not hold a run for ever.
        .args([
            "-c",
            "http.lowSpeedLimit=1000",
            "-c",
            "http.lowSpeedTime=30",
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
        ])
        .args(["--", url, commit])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| refused(format!("cannot start `git`: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// As [`restore`], and a commit that is in none of the `sources` is fetched into the bare repository at `fetched`: of the tree
/// itself from `remote`, of a submodule from its own URL.
///
/// # Errors
/// As [`restore`] and [`fetch`]; `NoSource` if there is no URL to fetch from.
pub fn restore_or_fetch(
    snapshot: &[u8],
    target: &Path,
    sources: &Sources,
    remote: Option<&str>,
    fetched: &Path,
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
                    Some(url) => fetch(fetched, &url, commit)?,
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
    use super::*;

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
        fetch(&bare, &url, &commit).unwrap();
        std::fs::rename(&published, dir.path().join("gone")).unwrap();
        fetch(&bare, &url, &commit).unwrap();
        let (again, none) = (dir.path().join("again"), Sources::default());
        restore_or_fetch(&kept, &again, &none, None, &bare).unwrap();
        assert_eq!(std::fs::read_to_string(again.join("file")).unwrap(), "new");
        std::fs::rename(dir.path().join("gone"), &published).unwrap();
        let (again, bare2) = (dir.path().join("fetched"), dir.path().join("other.git"));
        assert!(matches!(restore_or_fetch(&kept, &again, &none, None, &bare2), Err(GitError::NoSource { .. })));
        restore_or_fetch(&kept, &again, &none, Some(&url), &bare2).unwrap();
        assert_eq!(std::fs::read_to_string(again.join("file")).unwrap(), "new");

        let error = fetch(&bare, &url, &"1".repeat(40)).unwrap_err().to_string();
        assert!(error.contains(&url) && error.contains("1111") && error.contains("not"), "{error}");
    }
}
