//! Snapshots of work trees that git itself made, and their restoration.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_host::git::{GitError, Sources, describe, needed, restore, snapshot, source};

use lockstep_support::{commit, git, printed};

const LIMIT: u64 = 1 << 20;

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// All entries below `dir` except `.git`: kind or mode, and bytes, by path.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (String, Vec<u8>)> {
    let (mut found, mut open) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let (name, metadata) = (path.strip_prefix(dir).unwrap().to_owned(), fs::symlink_metadata(&path).unwrap());
            if path.file_name() == Some(OsStr::new(".git")) {
                continue;
            }
            let what = if metadata.is_symlink() {
                ("link".to_owned(), fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else if metadata.is_dir() {
                open.push(path);
                ("directory".to_owned(), Vec::new())
            } else {
                (format!("file {:o}", metadata.permissions().mode() & 0o100), fs::read(&path).unwrap())
            };
            found.insert(name, what);
        }
    }
    found
}

/// Makes a repository with one commit.
fn repository(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for name in ["kept", "edited", "staged", "deleted", "removed", "renamed", "mode", "becomes-directory", "d/inner"] {
        write(dir, name, format!("{name}\n"));
    }
    write(dir, "binary", [0, 159, 146, 150, 0, 255]);
    write(dir, ".gitignore", "ignored\ntarget/\n");
    symlink("kept", dir.join("link")).unwrap();
    commit(dir, "first");
}

/// Makes every kind of change that a work tree can have.
fn change(dir: &Path) {
    write(dir, "edited", "edited, and not staged\n");
    write(dir, "staged", "staged\n");
    write(dir, "new-and-staged", "new\n");
    git(dir, &["add", "staged", "new-and-staged"]);
    write(dir, "staged", "staged, and edited again\n");
    fs::remove_file(dir.join("deleted")).unwrap();
    git(dir, &["rm", "-q", "removed"]);
    git(dir, &["mv", "renamed", "other-name"]);
    fs::set_permissions(dir.join("mode"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(dir.join("becomes-directory")).unwrap();
    write(dir, "becomes-directory/inner", "inner\n");
    fs::remove_dir_all(dir.join("d")).unwrap();
    write(dir, "d", "a file now\n");
    write(dir, "binary", [255, 0, 1, 2, 0, 10, 13]);
    write(dir, "untracked/deep/er", "untracked\n");
    write(dir, "run.sh", "#!/bin/sh\n");
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    write(dir, "empty", "");
    fs::remove_file(dir.join("link")).unwrap();
    symlink("edited", dir.join("link")).unwrap();
    symlink("../run.sh", dir.join("untracked/new-link")).unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"not-\xff-utf8")), "strange\n").unwrap();
    fs::create_dir_all(dir.join("nothing/in/here")).unwrap();
    write(dir, "ignored", "not kept\n");
    write(dir, "target/debug/large", "not kept\n");
}

fn sources(paths: &[&Path]) -> Sources {
    Sources { repositories: paths.iter().map(|path| path.to_path_buf()).collect(), packed: None }
}

#[test]
fn every_kind_of_change_comes_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    repository(&from);
    change(&from);
    let (mut before, status) = (tree(&from), git(&from, &["status", "--porcelain"]));
    let (index, objects) = (fs::read(from.join(".git/index")).unwrap(), tree(&from.join(".git/objects")));
    let taken = snapshot(&from.join("untracked"), LIMIT).unwrap();
    assert!(taken.files >= 18, "{} of {status}", taken.files);
    let untracked: Vec<&str> = taken.untracked.iter().map(String::as_str).collect();
    let expected = [
        "becomes-directory/inner",
        "d",
        "empty",
        "not-\u{fffd}-utf8",
        "run.sh",
        "untracked/deep/er",
        "untracked/new-link",
    ];
    assert_eq!(untracked, expected, "neither staged nor ignored files");
    assert_eq!((tree(&from), git(&from, &["status", "--porcelain"])), (before.clone(), status), "nothing is changed");
    assert_eq!((fs::read(from.join(".git/index")).unwrap(), tree(&from.join(".git/objects"))), (index, objects));
    assert_eq!(snapshot(&from, LIMIT).unwrap().bytes, taken.bytes, "again the same bytes");

    restore(&taken.bytes, &to, &sources(&[&from])).unwrap();
    before.retain(|path, _| path != Path::new("ignored") && !path.starts_with("target"));
    assert_eq!(tree(&to), before);
    assert_eq!(git(&to, &["rev-parse", "HEAD"]), git(&from, &["rev-parse", "HEAD"]));
    // Staged changes come back unstaged.
    git(&from, &["reset", "-q"]);
    let lines = |dir: &Path| git(dir, &["status", "--porcelain", "-uall"]);
    assert_eq!(lines(&to), lines(&from));
    git(&to, &["fsck", "--no-dangling"]);
}

#[test]
fn a_clean_tree_is_small_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    repository(&from);
    let taken = snapshot(&from, 0).unwrap();
    assert!(taken.files == 0 && taken.bytes.len() < 500, "{} bytes", taken.bytes.len());
    restore(&taken.bytes, &to, &sources(&[&from])).unwrap();
    assert_eq!(tree(&to), tree(&from));
    assert_eq!(git(&to, &["status", "--porcelain"]), "");
}

#[test]
fn what_filters_hide_is_kept_as_it_lies_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (origin, from, to) = (dir.path().join("origin"), dir.path().join("from"), dir.path().join("to"));
    repository(&origin);
    write(&origin, ".gitattributes", "*.txt text eol=crlf\n");
    write(&origin, "lines.txt", "one\r\ntwo\r\n");
    commit(&origin, "lines");
    git(dir.path(), &["clone", "-q", "origin", "from"]);
    assert_eq!(fs::read(from.join("lines.txt")).unwrap(), b"one\r\ntwo\r\n");
    // A configured filter that keeps the length of files.
    git(&from, &["config", "filter.upper.clean", "tr a-z A-Z"]);
    git(&from, &["config", "filter.upper.smudge", "tr A-Z a-z"]);
    write(&from, ".git/info/attributes", "*.low filter=upper\n");
    write(&from, "name.low", "name\n");
    commit(&from, "filtered");
    assert_eq!(printed(Command::new("git").current_dir(&from).args(["show", "HEAD:name.low"])), "NAME\n");
    assert_eq!(git(&from, &["status", "--porcelain"]), "");
    restore(&snapshot(&from, LIMIT).unwrap().bytes, &to, &sources(&[&from])).unwrap();
    assert_eq!(tree(&to), tree(&from));
}

#[test]
fn submodules_come_back_with_their_own_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (inner, from, to) = (dir.path().join("inner"), dir.path().join("from"), dir.path().join("to"));
    repository(&inner);
    repository(&from);
    git(&from, &["submodule", "--quiet", "add", inner.to_str().unwrap(), "libs/inner"]);
    git(&from, &["commit", "-q", "-m", "with a submodule"]);
    let module = from.join("libs/inner");
    write(&module, "kept", "a commit of the submodule that the tree does not know of\n");
    git(&module, &["commit", "-q", "-am", "second"]);
    change(&module);
    write(&from, "edited", "x\n");
    let taken = snapshot(&from, LIMIT).unwrap();
    let parts = needed(&taken.bytes).unwrap();
    assert_eq!(parts.iter().map(|part| part.path.as_str()).collect::<Vec<_>>(), ["", "libs/inner"]);
    assert_eq!(parts[1].commit, git(&module, &["rev-parse", "HEAD"]).trim());
    assert_eq!(parts[1].url.as_deref(), inner.to_str());

    let error = restore(&taken.bytes, &to, &sources(&[&from, &inner])).unwrap_err();
    assert!(error.to_string().contains("of submodule `libs/inner` was not found; searched repositories: `"), "{error}");
    assert!(!to.exists(), "nothing is left of it");
    restore(&taken.bytes, &to, &sources(&[&from, &module])).unwrap();
    let mut expected = tree(&from);
    expected.retain(|path, _| !path.ends_with("ignored") && !path.starts_with("libs/inner/target"));
    assert_eq!(tree(&to), expected);
    let status = |dir: &Path| git(dir, &["status", "--porcelain", "libs"]);
    assert_eq!(status(&to), status(&from));

    // The `ignore` setting does not hide the change.
    git(&from, &["config", "-f", ".gitmodules", "submodule.libs/inner.ignore", "all"]);
    assert!(describe(&from).unwrap().unwrap().changed.iter().any(|path| path == "libs/inner"));

    // Restored without any repository, from the stored commits of both.
    let packed = source(&from, LIMIT).unwrap().unwrap();
    assert_eq!(source(&from, LIMIT).unwrap().unwrap(), packed, "again the same bytes");
    assert!(source(&from, 300).unwrap().is_none(), "too large is no error");
    let again = dir.path().join("again");
    restore(&taken.bytes, &again, &Sources { packed: Some(packed.clone()), repositories: Vec::new() }).unwrap();
    assert_eq!(tree(&again), expected);
    for length in (0..packed.len()).step_by(53) {
        let cut = Sources { packed: Some(packed[..length].to_vec()), repositories: Vec::new() };
        assert!(restore(&taken.bytes, &dir.path().join("cut"), &cut).is_err(), "{length}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path();
    repository(from);
    let refused = |limit: u64| snapshot(from, limit).unwrap_err().to_string();

    write(from, "small", [0; 10]);
    let large = fs::File::create(from.join("large")).unwrap();
    large.set_len(10 << 30).unwrap();
    let error = refused(LIMIT);
    assert!(error.contains("10737418250 bytes together, and at most 1048576"), "{error}");
    assert!(error.contains("large` (10737418240 bytes), ") && error.contains("small` (10 bytes)"), "{error}");
    fs::remove_file(from.join("large")).unwrap();

    symlink("/etc/passwd", from.join("out")).unwrap();
    let error = refused(LIMIT);
    assert!(error.contains("a symbolic link out of the work tree, to `/etc/passwd`"), "{error}");
    fs::remove_file(from.join("out")).unwrap();
    symlink("d/../../x", from.join("out")).unwrap();
    assert!(matches!(snapshot(from, LIMIT), Err(GitError::NotPlain { .. })));
    fs::remove_file(from.join("out")).unwrap();

    repository(&from.join("other"));
    assert!(refused(LIMIT).contains("a git repository of its own"), "{}", refused(LIMIT));
    fs::remove_dir_all(from.join("other")).unwrap();

    snapshot(from, LIMIT).unwrap();
    git(from, &["checkout", "-q", "--detach"]);
    snapshot(from, LIMIT).unwrap();
    git(from, &["checkout", "-q", "-b", "side"]);
    write(from, "edited", "side\n");
    git(from, &["commit", "-q", "-am", "side"]);
    git(from, &["checkout", "-q", "main"]);
    write(from, "edited", "main\n");
    git(from, &["commit", "-q", "-am", "main"]);
    let merge = Command::new("git").current_dir(from).args(["merge", "side"]).output().unwrap();
    assert!(!merge.status.success());
    assert!(refused(LIMIT).contains("is in the middle of a merge: finish or abort it first"), "{}", refused(LIMIT));

    let bare = tempfile::tempdir().unwrap();
    git(bare.path(), &["init", "-q", "--bare"]);
    assert!(matches!(snapshot(bare.path(), LIMIT), Err(GitError::Bare { .. })));
}

#[test]
fn damaged_bytes_and_occupied_places_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    repository(&from);
    change(&from);
    let taken = snapshot(&from, LIMIT).unwrap().bytes;
    let all = sources(&[&from]);
    for length in (0..taken.len()).step_by(37) {
        assert!(restore(&taken[..length], &to, &all).is_err(), "{length}");
        assert!(!to.exists(), "{length}");
    }
    let header = taken.iter().position(|byte| *byte == b'[').unwrap();
    let objects = header + taken[header..].iter().position(|byte| *byte == b']').unwrap();
    let objects = objects + taken[objects..].iter().position(|byte| *byte == b't').unwrap();
    for at in (0..taken.len()).step_by(19) {
        let mut damaged = taken.clone();
        damaged[at] ^= 0x10;
        let restored = restore(&damaged, &to, &all);
        assert!(at < objects || restored.is_err(), "byte {at}, of objects that begin at {objects}");
        if restored.is_ok() {
            fs::remove_dir_all(&to).unwrap();
        }
        assert!(!to.exists(), "{at}");
    }
    write(&to, "something", "in the way");
    assert!(matches!(restore(&taken, &to, &all), Err(GitError::Occupied { .. })));
    assert_eq!(fs::read(to.join("something")).unwrap(), b"in the way");
    fs::remove_dir_all(&to).unwrap();
    assert!(matches!(restore(&taken, &to, &sources(&[dir.path()])), Err(GitError::NoSource { .. })));
}

#[test]
fn files_that_git_was_told_not_to_look_at_are_named_and_kept_in_submodules_too() {
    let dir = tempfile::tempdir().unwrap();
    let (inner, from, to) = (dir.path().join("inner"), dir.path().join("from"), dir.path().join("to"));
    repository(&inner);
    repository(&from);
    git(&from, &["submodule", "--quiet", "add", inner.to_str().unwrap(), "libs/inner"]);
    git(&from, &["commit", "-q", "-m", "with a submodule"]);
    let module = from.join("libs/inner");
    for (tree, flag) in [(&from, "--assume-unchanged"), (&module, "--skip-worktree")] {
        git(tree, &["update-index", flag, "kept"]);
        let same_length = vec![b'#'; fs::metadata(tree.join("kept")).unwrap().len() as usize];
        write(tree, "kept", same_length);
    }
    assert_eq!(describe(&from).unwrap().unwrap().changed, ["kept", "libs/inner/kept"]);
    let taken = snapshot(&from, LIMIT).unwrap();
    restore(&taken.bytes, &to, &sources(&[&from, &module])).unwrap();
    for name in ["kept", "libs/inner/kept"] {
        assert_eq!(fs::read(to.join(name)).unwrap(), fs::read(from.join(name)).unwrap(), "{name}");
    }
}
