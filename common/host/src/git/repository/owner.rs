//! Opens a repository of another owner if `safe.directory` allows it. libgit2 does not know all forms of this setting: here
//! `GIT_CONFIG_COUNT` with its pairs, the files that `GIT_CONFIG_GLOBAL` and `GIT_CONFIG_SYSTEM` name, `DIR/*` and `~/DIR` count, too.
//!
//! libgit2 does not check the owner of a repository that is opened as bare. So an allowed repository is opened as bare, and gets its
//! work tree afterwards.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{Config, ErrorCode, Repository};

const KEY: &str = "safe.directory";

/// Looks up an environment variable.
type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The repository that contains `path`. It may have another owner if `safe.directory` allows that.
///
/// # Errors
/// As [`Repository::discover`].
pub fn discover(path: &Path) -> Result<Repository, git2::Error> {
    or_allowed(Repository::discover(path), path)
}

/// As [`Repository::open`]; the repository may have another owner if `safe.directory` allows that.
pub(in crate::git) fn open(root: &Path) -> Result<Repository, git2::Error> {
    or_allowed(Repository::open(root), root)
}

fn or_allowed(opened: Result<Repository, git2::Error>, path: &Path) -> Result<Repository, git2::Error> {
    match opened {
        Err(error) if error.code() == ErrorCode::Owner => allowed(path, &|name| env::var_os(name))?.ok_or(error),
        opened => opened,
    }
}

/// The repository that contains `path`, if `safe.directory` of the machine, the user or the environment allows it.
fn allowed(path: &Path, variable: Variable<'_>) -> Result<Option<Repository>, git2::Error> {
    let none: [&Path; 0] = [];
    let git_dir = Repository::discover_path(path, none)?;
    // The work tree whose `.git` is this repository. A bare repository inside a work tree has none.
    let top = top_level(path).filter(|top| Repository::discover_path(top, none).is_ok_and(|found| found == git_dir));
    let Ok(named) = top.as_ref().unwrap_or(&git_dir).canonicalize() else { return Ok(None) };
    if !is_allowed(&named, &values(variable), variable) {
        return Ok(None);
    }
    let repository = Repository::open_bare(&git_dir)?;
    let config = repository.config()?;
    if let Some(top) = top
        && !config.get_bool("core.bare").unwrap_or_default()
    {
        let configured = config.get_path("core.worktree").map(|tree| git_dir.join(tree));
        repository.set_workdir(&configured.unwrap_or(top), false)?;
    }
    Ok(Some(repository))
}

/// All values of `safe.directory`, in git's order.
fn values(variable: Variable<'_>) -> Vec<OsString> {
    let mut values: Vec<OsString> = files(variable).iter().flat_map(|file| of_file(file)).collect();
    let count = variable("GIT_CONFIG_COUNT").and_then(|count| count.to_str()?.parse::<u32>().ok());
    let pairs = (0..count.unwrap_or_default())
        .map(|index| variable(&format!("GIT_CONFIG_KEY_{index}")).zip(variable(&format!("GIT_CONFIG_VALUE_{index}"))));
    // Git stops at the first missing pair.
    let pairs = pairs.map_while(|pair| pair);
    values.extend(pairs.filter(|(key, _)| key.eq_ignore_ascii_case(KEY)).map(|(_, value)| value));
    values
}

/// The configuration files of the machine and the user, in order of increasing precedence.
fn files(variable: Variable<'_>) -> Vec<PathBuf> {
    let system = variable("GIT_CONFIG_SYSTEM").map(PathBuf::from).or_else(|| Config::find_system().ok());
    let home = variable("HOME").map(PathBuf::from);
    let xdg = variable("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let xdg = xdg.or_else(|| home.as_ref().map(|home| home.join(".config"))).map(|dir| dir.join("git/config"));
    let global = match variable("GIT_CONFIG_GLOBAL") {
        Some(file) => [Some(file.into()), None],
        None => [xdg, home.map(|home| home.join(".gitconfig"))],
    };
    system.into_iter().chain(global.into_iter().flatten()).collect()
}

/// The values of `safe.directory` in `file`; none if it cannot be read.
fn of_file(file: &Path) -> Vec<OsString> {
    let mut values = Vec::new();
    if let Ok(config) = Config::open(file)
        && let Ok(entries) = config.multivar(KEY, None)
    {
        // After an error, the values before it count.
        let _read = entries.for_each(|entry| {
            // A key without a value counts as an empty value.
            let value = if entry.has_value() { entry.value_bytes() } else { b"" };
            values.push(OsStr::from_bytes(value).to_owned());
        });
    }
    values
}

/// Whether `values` include the directory `named`, a canonical path. An empty value cancels those before it.
fn is_allowed(named: &Path, values: &[OsString], variable: Variable<'_>) -> bool {
    let last = values.iter().rposition(|value| value.is_empty()).map_or(0, |empty| empty + 1);
    values[last..].iter().any(|value| {
        if value == "*" {
            return true;
        }
        let (dir, all_below) = match value.as_bytes().strip_suffix(b"/*") {
            Some(b"") => (OsStr::new("/"), true),
            Some(dir) => (OsStr::from_bytes(dir), true),
            None => (value.as_os_str(), false),
        };
        let Some(dir) = directory(Path::new(dir), variable) else { return false };
        if all_below { named != dir && named.starts_with(&dir) } else { named == dir }
    })
}

/// The canonical form of a configured directory, which is absolute or relative to the home directory.
fn directory(written: &Path, variable: Variable<'_>) -> Option<PathBuf> {
    let path = match written.strip_prefix("~") {
        Ok(below) => PathBuf::from(variable("HOME")?).join(below),
        Err(_) => written.to_owned(),
    };
    // Git accepts one relative path, `.`.
    (path.is_absolute() || path == Path::new(".")).then(|| fs::canonicalize(path).ok())?
}

/// The nearest directory with a `.git`, from `path` upwards.
pub(in crate::git) fn top_level(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    path.ancestors().find(|dir| dir.join(".git").symlink_metadata().is_ok()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use super::super::super::testing::git;
    use super::super::super::{GitError, describe};
    use super::*;

    /// Gives everything below `dir` to the user `nobody`. Only root can do that; returns false otherwise.
    fn give_away(dir: &Path) -> bool {
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(dir).status().unwrap().success());
        } else {
            eprintln!("skipped: only root can give a directory to another owner");
        }
        is_root
    }

    /// A repository with one commit, in `dir/tree`.
    fn repository(dir: &Path) -> PathBuf {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        fs::write(tree.join("below/f"), "1").unwrap();
        git(&tree, &["init", "-q", "-b", "main"]);
        git(&tree, &["add", "."]);
        git(&tree, &["commit", "-q", "-m", "x"]);
        tree.canonicalize().unwrap()
    }

    /// Environment variables that set `values` as git configuration.
    fn pairs(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::from([("GIT_CONFIG_COUNT".to_owned(), values.len().to_string())]);
        for (index, (key, value)) in values.iter().enumerate() {
            variables.insert(format!("GIT_CONFIG_KEY_{index}"), (*key).to_owned());
            variables.insert(format!("GIT_CONFIG_VALUE_{index}"), (*value).to_owned());
        }
        variables
    }

    /// Whether the repository at `tree` can be read with `variables`. Checks that git itself agrees.
    fn is_read(tree: &Path, home: &Path, mut variables: BTreeMap<String, String>) -> bool {
        variables.insert("HOME".to_owned(), home.to_str().unwrap().to_owned());
        let found = allowed(tree, &|name| variables.get(name).map(OsString::from)).unwrap();
        let mut command = Command::new("git");
        command.env_clear().env("PATH", env::var_os("PATH").unwrap()).envs(&variables).current_dir(tree);
        let by_git = command.args(["rev-parse", "HEAD"]).output().unwrap();
        assert_eq!(found.is_some(), by_git.status.success(), "{variables:?}: {by_git:?}");
        found.is_some()
    }

    #[test]
    fn the_environment_allows_what_it_allows_git() {
        let dir = tempfile::tempdir().unwrap();
        let (home, tree) = (dir.path().canonicalize().unwrap(), repository(dir.path()));
        if !give_away(&tree) {
            return;
        }
        let (key, tree_text, home_text) = ("safe.directory", tree.to_str().unwrap(), home.to_str().unwrap());
        let below = format!("{home_text}/*");
        for values in [
            &[(key, tree_text)][..],
            &[("Safe.Directory", &format!("{tree_text}/"))],
            &[(key, "*")],
            &[(key, &below)],
            &[(key, "/*")],
            &[(key, "~/tree")],
            &[(key, ""), (key, "/elsewhere"), (key, tree_text)],
        ] {
            assert!(is_read(&tree, &home, pairs(values)), "{values:?}");
        }
        for values in [
            &[][..],
            &[(key, home_text)],
            &[(key, &format!("{tree_text}/*"))],
            &[(key, "tree")],
            &[(key, tree_text), (key, "")],
            &[("safe.bareRepository", tree_text)],
        ] {
            assert!(!is_read(&tree, &home, pairs(values)), "{values:?}");
        }
        let mut gap = pairs(&[(key, tree_text)]);
        gap.insert("GIT_CONFIG_COUNT".to_owned(), "0".to_owned());
        assert!(!is_read(&tree, &home, gap));
        let file = home.join("config");
        fs::write(&file, format!("[safe]\n directory = /elsewhere\n directory = {tree_text}\n")).unwrap();
        for name in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
            let variables = || BTreeMap::from([(name.to_owned(), file.to_str().unwrap().to_owned())]);
            assert!(is_read(&tree, &home, variables()), "{name}");
            let mut forgotten = pairs(&[(key, "")]);
            forgotten.extend(variables());
            assert!(!is_read(&tree, &home, forgotten), "{name}");
        }
        let own = home.join(".gitconfig");
        fs::write(&own, "[safe]\n directory = ~/*\n").unwrap();
        assert!(is_read(&tree, &home, BTreeMap::new()));
        assert!(is_read(&tree, &home, BTreeMap::from([("GIT_CONFIG_SYSTEM".to_owned(), String::new())])));
        assert!(!is_read(&tree, &home, BTreeMap::from([("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned())])));
        fs::remove_file(&own).unwrap();
        fs::write(&file, "[safe]\n directory\n").unwrap();
        let without_value = [("GIT_CONFIG_GLOBAL".to_owned(), file.to_str().unwrap().to_owned())];
        assert!(!is_read(&tree, &home, BTreeMap::from(without_value)));
        let error = describe(&tree).unwrap_err();
        assert!(matches!(&error, GitError::Unsupported { helps, .. } if helps.contains("safe.directory")), "{error}");
    }

    #[test]
    fn an_allowed_repository_has_its_own_work_tree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = repository(dir.path());
        let (linked, bare) = (dir.path().join("linked"), tree.join("bare.git"));
        git(&tree, &["worktree", "add", "-q", "-b", "other", linked.to_str().unwrap()]);
        git(&tree, &["clone", "-q", "--bare", ".", "bare.git"]);
        if !give_away(dir.path()) {
            return;
        }
        let everything = pairs(&[("safe.directory", "*")]);
        let open = |path: &Path| allowed(path, &|name| everything.get(name).map(OsString::from)).unwrap().unwrap();
        let head = |repository: &Repository| repository.head().unwrap().shorthand().unwrap().to_owned();
        for (path, top, branch) in
            [(&tree, &tree, "main"), (&tree.join("below"), &tree, "main"), (&linked, &linked, "other")]
        {
            let repository = open(path);
            let work_tree = repository.workdir().unwrap().canonicalize().unwrap();
            assert_eq!((work_tree, head(&repository).as_str()), (top.canonicalize().unwrap(), branch));
        }
        // Allowing a work tree does not allow a bare repository inside it.
        let of_tree = pairs(&[("safe.directory", tree.to_str().unwrap())]);
        assert!(!is_read(&bare, dir.path(), of_tree));
        let repository = open(&bare);
        assert!(repository.is_bare() && repository.workdir().is_none());
        assert_eq!(repository.path().canonicalize().unwrap(), bare.canonicalize().unwrap());
    }
}
