//! A repository of another owner that `safe.directory` allows where libgit2 does not see it: in `GIT_CONFIG_COUNT` and its pairs, in the
//! file that `GIT_CONFIG_GLOBAL` or `GIT_CONFIG_SYSTEM` names, and as `DIR/*` or `~/DIR`.
//!
//! libgit2 checks no owner of what is opened as bare; so that is how an allowed repository is opened, and it gets its work tree afterwards.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{Config, ErrorCode, Repository};

/// The one key that is read here.
const KEY: &str = "safe.directory";

/// A variable of the environment.
type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The repository that `path` lies in, also an allowed one of another owner.
///
/// # Errors
/// As [`Repository::discover`].
pub fn discover(path: &Path) -> Result<Repository, git2::Error> {
    or_allowed(Repository::discover(path), path)
}

/// [`Repository::open`], also of an allowed repository of another owner.
pub(in crate::git) fn open(root: &Path) -> Result<Repository, git2::Error> {
    or_allowed(Repository::open(root), root)
}

fn or_allowed(opened: Result<Repository, git2::Error>, path: &Path) -> Result<Repository, git2::Error> {
    match opened {
        Err(error) if error.code() == ErrorCode::Owner => allowed(path, &|name| env::var_os(name))?.ok_or(error),
        opened => opened,
    }
}

/// The repository around `path`, if the configuration of the machine, the user or the environment allows it.
fn allowed(path: &Path, variable: Variable<'_>) -> Result<Option<Repository>, git2::Error> {
    let none: [&Path; 0] = [];
    let git_dir = Repository::discover_path(path, none)?;
    // One beside whose `.git` it lies, and not a bare one in somebody's work tree.
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

/// The values of `safe.directory`, in the order in which git reads them.
fn values(variable: Variable<'_>) -> Vec<OsString> {
    let mut values: Vec<OsString> = files(variable).iter().flat_map(|file| of_file(file)).collect();
    let count = variable("GIT_CONFIG_COUNT").and_then(|count| count.to_str()?.parse::<u32>().ok());
    let pairs = (0..count.unwrap_or_default())
        .map(|index| variable(&format!("GIT_CONFIG_KEY_{index}")).zip(variable(&format!("GIT_CONFIG_VALUE_{index}"))));
    // git stops at a pair that is not there.
    let pairs = pairs.map_while(|pair| pair);
    values.extend(pairs.filter(|(key, _)| key.eq_ignore_ascii_case(KEY)).map(|(_, value)| value));
    values
}

/// The files of configuration that are not a repository's own, the more important ones last.
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

/// None of a file that cannot be read.
fn of_file(file: &Path) -> Vec<OsString> {
    let mut values = Vec::new();
    if let Ok(config) = Config::open(file)
        && let Ok(entries) = config.multivar(KEY, None)
    {
        // What was read until an error counts.
        let _read = entries.for_each(|entry| {
            // A key without a value is as an empty one.
            let value = if entry.has_value() { entry.value_bytes() } else { b"" };
            values.push(OsStr::from_bytes(value).to_owned());
        });
    }
    values
}

/// Whether `values` name the directory `named`, which is canonical; an empty one forgets those before it.
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

/// A directory as it is written, absolute or from the home directory on, in its canonical form.
fn directory(written: &Path, variable: Variable<'_>) -> Option<PathBuf> {
    let path = match written.strip_prefix("~") {
        Ok(below) => PathBuf::from(variable("HOME")?).join(below),
        Err(_) => written.to_owned(),
    };
    // git takes one relative path, for who stands at the top.
    (path.is_absolute() || path == Path::new(".")).then(|| fs::canonicalize(path).ok())?
}

/// The nearest directory from `path` upwards in which `.git` lies.
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

    /// Everything below `dir` belongs to nobody then; only root can do that.
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

    /// `GIT_CONFIG_COUNT` with its pairs.
    fn pairs(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::from([("GIT_CONFIG_COUNT".to_owned(), values.len().to_string())]);
        for (index, (key, value)) in values.iter().enumerate() {
            variables.insert(format!("GIT_CONFIG_KEY_{index}"), (*key).to_owned());
            variables.insert(format!("GIT_CONFIG_VALUE_{index}"), (*value).to_owned());
        }
        variables
    }

    /// Whether the repository at `tree` is read with `variables`: here and by git itself, which agree.
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
        // Who allows a work tree allows no bare repository in it.
        let of_tree = pairs(&[("safe.directory", tree.to_str().unwrap())]);
        assert!(!is_read(&bare, dir.path(), of_tree));
        let repository = open(&bare);
        assert!(repository.is_bare() && repository.workdir().is_none());
        assert_eq!(repository.path().canonicalize().unwrap(), bare.canonicalize().unwrap());
    }
}
