//! Checks on the directory of `--local`. A repository or an archive may contain such a directory, with links that make Lockstep write to
//! files elsewhere. So a directory with links is refused, and a default directory must belong to the user.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lockstep_host::git;
use rustix::process::geteuid;

use crate::terminal::{Exit, Failure};

/// Levels of the directory that are searched for links. Blobs and work trees of programs are deeper, and may contain links.
const LEVELS: usize = 3;

/// The absolute path of the default directory `dir`, which need not exist.
///
/// # Errors
/// `Refused` if it is a link, belongs to another user, is tracked by git, or contains a link.
pub(crate) fn by_default(dir: &Path) -> Result<PathBuf, Failure> {
    let dir = absolute(dir)?;
    let Some(found) = there(&dir)? else { return Ok(dir) };
    if found.is_symlink() {
        return Err(refused(&dir, "it is a symbolic link"));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(refused(&dir, &format!("it belongs to another user (user id {})", found.uid())));
    }
    check(&dir)?;
    Ok(dir)
}

/// As [`by_default`], for a directory that the user named: it may be a link, and may belong to another user.
pub(crate) fn named(dir: &Path) -> Result<PathBuf, Failure> {
    let dir = absolute(dir)?;
    check(&dir)?;
    Ok(dir)
}

fn check(dir: &Path) -> Result<(), Failure> {
    if there(dir)?.is_none() {
        return Ok(());
    }
    if let Some(path) = git::tracked(dir).map_err(|error| Failure::caused(Exit::Local, &error))? {
        return Err(refused(dir, &format!("git tracks `{}`, so it came with the repository", path.display())));
    }
    if !dir.is_dir() {
        return Err(refused(dir, "it is not a directory"));
    }
    let mut level = vec![dir.to_owned()];
    for _ in 0..LEVELS {
        let mut below = Vec::new();
        for dir_here in &level {
            for entry in fs::read_dir(dir_here).map_err(|error| unusable(dir_here, &error))? {
                let entry = entry.map_err(|error| unusable(dir_here, &error))?;
                let kind = entry.file_type().map_err(|error| unusable(dir_here, &error))?;
                if kind.is_symlink() {
                    let words =
                        format!("`{}` in it is a symbolic link, and Lockstep makes none there", entry.path().display());
                    return Err(refused(dir, &words));
                }
                if kind.is_dir() {
                    below.push(entry.path());
                }
            }
        }
        level = below;
    }
    Ok(())
}

fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(dir).map_err(|error| unusable(dir, &error))
}

fn there(dir: &Path) -> Result<Option<Metadata>, Failure> {
    match fs::symlink_metadata(dir) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(dir, &error)),
    }
}

fn unusable(dir: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Local, format!("cannot use directory `{}`: {error}", dir.display()))
}

fn refused(dir: &Path, why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("cannot use directory `{}` for `--local`: {why}", dir.display()))
        .hint("remove it if nobody needs it, or name another directory with `--data-dir`")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn git(dir: &Path, arguments: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        assert!(Command::new("git").current_dir(dir).args(identity).args(arguments).status().unwrap().success());
    }

    fn why(taken: Result<PathBuf, Failure>) -> String {
        let failure = taken.unwrap_err();
        assert!(matches!(failure.exit(), Exit::Refused), "{}", failure.message());
        failure.message().to_owned()
    }

    #[test]
    fn a_directory_that_is_a_link_or_has_one_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (own, victim) = (dir.path().join(".lockstep"), dir.path().join("victim"));
        assert_eq!(by_default(&own).unwrap(), own, "it does not exist yet");
        fs::create_dir(&victim).unwrap();
        symlink(&victim, &own).unwrap();
        assert!(why(by_default(&own)).contains("it is a symbolic link"));
        // A directory that the user names may be a link.
        named(&own).unwrap();
        fs::remove_file(&own).unwrap();
        for link in ["local-1.log", "coordinator/LOCK", "coordinator/store/ab"] {
            let link = own.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&victim, &link).unwrap();
            for taken in [by_default(&own), named(&own)] {
                let said = why(taken);
                assert!(said.contains(&format!("`{}` in it is a symbolic link", link.display())), "{said}");
            }
            fs::remove_file(&link).unwrap();
        }
        by_default(&own).unwrap();
        fs::remove_dir_all(&own).unwrap();
        fs::write(&own, "").unwrap();
        assert!(why(by_default(&own)).contains("it is not a directory"));
    }

    #[test]
    fn a_directory_that_came_with_a_repository_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(".lockstep");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("state.redb"), "forged").unwrap();
        git(dir.path(), &["init", "-q"]);
        by_default(&own).unwrap();
        git(dir.path(), &["add", "."]);
        git(dir.path(), &["commit", "-q", "-m", "x"]);
        for taken in [by_default(&own), named(&own)] {
            let said = why(taken);
            assert!(said.contains("git tracks `") && said.contains("state.redb`"), "{said}");
        }
        // A link that git tracks is refused even if the user names it.
        fs::create_dir(dir.path().join("victim")).unwrap();
        symlink("victim", dir.path().join("runs")).unwrap();
        git(dir.path(), &["add", "."]);
        assert!(why(named(&dir.path().join("runs"))).contains("runs`, so it came"));
    }
}
