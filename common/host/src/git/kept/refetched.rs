//! Restores a stored work tree, and fetches its commits if no local repository has them.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::error::GitError;
use super::super::fetch::{Remotes, fetch};
use super::restore::{Needed, Sources, needed, restore};

/// As [`restore`], but a commit that none of `sources` has is fetched into the bare repository at `fetched`, within the limits of
/// `remotes`. The commit of the work tree itself comes from `remote`, that of a submodule from the submodule's URL.
///
/// # Errors
/// As [`restore`] and [`fetch`]; `NoSource` if a commit is missing and there is no URL.
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
                // Each commit is fetched at most once.
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
    use std::time::Duration;

    use super::super::super::testing::git;
    use super::super::snapshot::snapshot;
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
        assert!(refused(&none, &url).contains("fetching is disabled on this node"));
        let https = Remotes { protocols: vec!["https".to_owned()], limit: remotes.limit };
        let touched = dir.path().join("touched");
        for url in [&url, published.to_str().unwrap(), &format!("ext::touch {}", touched.display())] {
            assert!(refused(&https, url).contains("not allowed"), "{}", refused(&https, url));
        }
        assert!(refused(&remotes, &format!("ext::touch {}", touched.display())).contains("not allowed"));
        assert!(!touched.exists());
        // A remote that accepts a connection and sends nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hasty = Remotes { limit: Duration::from_millis(300), ..remotes };
        let error = refused(&hasty, &format!("git://{}/x", silent.local_addr().unwrap()));
        assert!(error.contains("it timed out after 0 s"), "{error}");
    }
}
