//! Repositories in formats that libgit2 alone cannot read, and configurations that hide changes or name commands.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails its test")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_host::git::{
    Remotes, Sources, changes, commit_at, describe, files_at, restore, restore_or_fetch, snapshot, source,
};

use lockstep_support::{commit, git, printed};

const LIMIT: u64 = 1 << 20;

/// Makes a repository with two commits of `a/f` and `b/f`, and one more file.
fn repository(dir: &Path) {
    for text in ["1\n", "2\n"] {
        for name in ["a", "b"] {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("f"), format!("{name}{text}")).unwrap();
        }
        fs::write(dir.join("other"), "other").unwrap();
        commit(dir, text);
    }
    git(dir, &["config", "uploadpack.allowFilter", "true"]);
}

/// Makes a repository with the submodule `sub`, and a linked work tree with the same submodule. Returns for each tree its root and the
/// root of its submodule.
fn trees(dir: &Path) -> [[PathBuf; 2]; 2] {
    let (inner, tree, linked) = (dir.join("inner"), dir.join("tree"), dir.join("linked"));
    repository(&inner);
    repository(&tree);
    git(&tree, &["submodule", "--quiet", "add", inner.to_str().unwrap(), "sub"]);
    git(&tree, &["commit", "-q", "-m", "with a submodule"]);
    git(&tree, &["worktree", "add", "-q", linked.to_str().unwrap()]);
    git(&linked, &["submodule", "--quiet", "update", "--init"]);
    [tree, linked].map(|root| [root.clone(), root.join("sub")])
}

fn restored(from: &Path, to: &Path) {
    let packed = source(from, LIMIT).unwrap();
    assert!(packed.is_some());
    restore(&snapshot(from, LIMIT).unwrap().bytes, to, &Sources { packed, repositories: Vec::new() }).unwrap();
}

fn changed(dir: &Path) -> Vec<String> {
    describe(dir).unwrap().unwrap().changed
}

#[test]
fn split_and_sparse_indexes_are_read_in_submodules_and_linked_work_trees_too() {
    for (form, change) in [
        ("split", &["update-index", "--split-index"][..]),
        ("sparse", &["sparse-checkout", "set", "--cone", "--sparse-index", "a"][..]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (index, [root, sub]) in trees(dir.path()).into_iter().enumerate() {
            git(&sub, change);
            assert_eq!(changed(&root), [] as [&str; 0], "{form} {index}");
            if form == "split" {
                git(&root, change);
                assert_eq!(changed(&root), [] as [&str; 0], "{form} {index}");
            }
            fs::write(sub.join("a/f"), "x2\n").unwrap();
            assert_eq!(changed(&root), ["sub"], "{form} {index}");
            let to = dir.path().join(format!("to-{index}"));
            restored(&root, &to);
            assert_eq!(fs::read_to_string(to.join("sub/a/f")).unwrap(), "x2\n", "{form} {index}");
            git(&sub, &["checkout", "-q", "a/f"]);
            // Another commit in the submodule is a change, also after it was staged.
            git(&sub, &["checkout", "-q", "HEAD~1"]);
            assert_eq!(changed(&root), ["sub"], "{form} {index}");
            git(&root, &["add", "sub"]);
            assert_eq!(changed(&root), ["sub"], "{form} {index}");
        }
    }
}

#[test]
fn what_a_partial_clone_left_with_its_remote_is_fetched_beside_it_or_the_error_says_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    repository(&origin);
    let url = format!("file://{}", origin.display());
    for filter in ["blob:none", "tree:0"] {
        let part = dir.path().join(format!("part-{filter}"));
        let path = part.to_str().unwrap();
        git(dir.path(), &["clone", "-q", &format!("--filter={filter}"), "--sparse", &url, path]);
        let before = git(&part, &["count-objects", "-v"]);
        assert_eq!(changed(&part), [] as [&str; 0], "{filter}");
        let to = dir.path().join(format!("to-{filter}"));
        restored(&part, &to);
        assert_eq!(fs::read_to_string(to.join("b/f")).unwrap(), "b2\n", "{filter}");
        // It is also fetched if the clone is only one of the sources, or if an older revision is read.
        let (again, sources) = (dir.path().join(format!("again-{filter}")), [part.clone()].to_vec());
        let sources = Sources { packed: None, repositories: sources };
        let none = dir.path().join("none.git");
        let kept = snapshot(&part, LIMIT).unwrap().bytes;
        restore_or_fetch(&kept, &again, &sources, None, (&none, &Remotes::of_a_person())).unwrap();
        let commit = commit_at(&part.join("b/f"), &part, "HEAD~1").unwrap();
        let files = files_at(&part.join("b"), &commit, dir.path()).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&files[0].1).unwrap(), "b1\n", "{filter}");
        let between = changes(&part, &commit, &git(&part, &["rev-parse", "HEAD"])).unwrap().unwrap();
        assert!(between.patch.contains("-b1\n+b2\n"), "{filter}: {}", between.patch);
        assert_eq!(git(&part, &["count-objects", "-v"]), before, "{filter}: the repository is only read");

        let hidden = dir.path().join("hidden");
        fs::rename(&origin, &hidden).unwrap();
        let error = source(&part, LIMIT).unwrap_err().to_string();
        assert!(error.contains("partial clone") && error.contains("git fetch --refetch --no-filter"), "{error}");
        fs::rename(&hidden, &origin).unwrap();
        git(&part, &["fetch", "-q", "--refetch", "--no-filter"]);
        fs::rename(&origin, &hidden).unwrap();
        source(&part, LIMIT).unwrap().unwrap();
        fs::rename(&hidden, &origin).unwrap();
    }
}

#[test]
fn a_submodule_that_is_a_partial_clone_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    for (index, [root, sub]) in trees(dir.path()).into_iter().enumerate() {
        let url = format!("file://{}", dir.path().join("inner").display());
        fs::remove_dir_all(&sub).unwrap();
        git(dir.path(), &["clone", "-q", "--filter=blob:none", "--sparse", &url, sub.to_str().unwrap()]);
        assert_eq!(changed(&root), [] as [&str; 0]);
        let to = dir.path().join(format!("to-{index}"));
        restored(&root, &to);
        assert_eq!(fs::read_to_string(to.join("sub/b/f")).unwrap(), "b2\n");
    }
}

#[test]
fn a_submodule_that_cannot_be_read_is_named_and_one_that_was_never_made_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let [[root, sub], _] = trees(dir.path());
    fs::remove_dir_all(&sub).unwrap();
    assert_eq!(changed(&root), ["sub"]);
    let to = dir.path().join("to");
    restored(&root, &to);
    assert!(!to.join("sub").exists());
    fs::create_dir(&sub).unwrap();
    assert_eq!(changed(&root), [] as [&str; 0]);
    git(&sub, &["init", "-q", "--object-format=sha256"]);
    for error in [describe(&root).unwrap_err(), snapshot(&root, LIMIT).unwrap_err(), source(&root, LIMIT).unwrap_err()]
    {
        let error = error.to_string();
        assert!(error.contains("sub`") && error.contains("SHA-256"), "{error}");
    }
}

/// Arguments of a git command, the file that changes afterwards, and the change.
type Case<'a> = (&'a [&'a str], &'a str, &'a dyn Fn(&Path));

#[test]
fn no_configuration_hides_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let [[root, sub], _] = trees(dir.path());
    for tree in [&root, &sub] {
        symlink("a/f", tree.join("link")).unwrap();
        commit(tree, "link");
    }
    git(&root, &["commit", "-q", "-am", "the submodule"]);
    assert_eq!(changed(&root), [] as [&str; 0]);
    let mode = |bits: u32| move |at: &Path| fs::set_permissions(at, fs::Permissions::from_mode(bits)).unwrap();
    let same_stat = |at: &Path| {
        let modified = fs::metadata(at).unwrap().modified().unwrap();
        fs::write(at, "x2\n").unwrap();
        File::options().append(true).open(at).unwrap().set_modified(modified).unwrap();
    };
    let plain = |at: &Path| {
        fs::remove_file(at).unwrap();
        fs::write(at, "a/f").unwrap();
    };
    let untracked = |at: &Path| fs::write(at, "new").unwrap();
    let gone = |at: &Path| fs::remove_file(at).unwrap();
    let assumed = &["update-index", "--assume-unchanged", "b/f", "link"][..];
    let cases: [Case<'_>; 9] = [
        (&["config", "core.fileMode", "false"], "a/f", &mode(0o755)),
        (&["config", "core.trustctime", "false"], "a/f", &same_stat),
        (&["config", "core.checkStat", "minimal"], "a/f", &same_stat),
        (&["config", "core.symlinks", "false"], "link", &plain),
        (&["config", "status.showUntrackedFiles", "no"], "new", &untracked),
        (&["config", "core.ignoreCase", "true"], "OTHER", &untracked),
        (assumed, "b/f", &mode(0o755)),
        (assumed, "b/f", &gone),
        (assumed, "link", &plain),
    ];
    for tree in [&root, &sub] {
        for (configured, name, change) in &cases {
            git(tree, configured);
            change(&tree.join(name));
            let shown = if tree == &root { (*name).to_owned() } else { format!("sub/{name}") };
            let found = changed(&root);
            assert!(found.contains(&shown) || (tree == &sub && found == ["sub"]), "{configured:?}: {found:?}");
            let to = dir.path().join("to");
            restored(&root, &to);
            let (kept, lies) = (to.join(tree.strip_prefix(&root).unwrap()).join(name), tree.join(name));
            let kind = |path: &Path| fs::symlink_metadata(path).ok().map(|found| (found.is_symlink(), found.mode_x()));
            assert_eq!(kind(&kept), kind(&lies), "{configured:?}");
            assert_eq!(fs::read(&kept).ok(), fs::read(&lies).ok(), "{configured:?}");
            fs::remove_dir_all(&to).unwrap();
            git(tree, &["update-index", "--no-assume-unchanged", "b/f", "link"]);
            if configured[0] == "config" {
                git(tree, &["config", "--unset", configured[1]]);
            }
            git(tree, &["reset", "-q", "--hard"]);
            git(tree, &["clean", "-qfd"]);
            assert_eq!(changed(&root), [] as [&str; 0], "{configured:?}");
        }
    }
}

trait Executable {
    fn mode_x(&self) -> u32;
}

impl Executable for fs::Metadata {
    fn mode_x(&self) -> u32 {
        self.permissions().mode() & 0o100
    }
}

/// A repository's own configuration may name commands that git would run.
#[test]
fn no_command_of_a_repository_is_run() {
    for form in [
        &["sparse-checkout", "set", "--cone", "--sparse-index", "a"][..],
        &["update-index", "--split-index", "--untracked-cache"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (origin, part, ran) = (dir.path().join("origin"), dir.path().join("part"), dir.path().join("ran"));
        repository(&origin);
        let url = format!("file://{}", origin.display());
        git(dir.path(), &["clone", "-q", "--filter=blob:none", &url, part.to_str().unwrap()]);
        git(&part, form);
        let command = dir.path().join("command");
        fs::write(&command, format!("#!/bin/sh\necho \"$0\" \"$@\" >> {}\nexit 1\n", ran.display())).unwrap();
        name_commands(&part, &command);
        assert!(!ran.exists());
        fs::write(part.join("a/f"), "x2\n").unwrap();
        assert_eq!(changed(&part), ["a/f"]);
        restored(&part, &dir.path().join("to"));
        let commit = commit_at(&part.join("b/f"), &part, "HEAD~1").unwrap();
        files_at(&part.join("b"), &commit, dir.path()).unwrap().unwrap();
        changes(&part, &commit, &git(&origin, &["rev-parse", "HEAD"])).unwrap().unwrap();
        assert!(!ran.exists(), "{}", fs::read_to_string(&ran).unwrap());
        // Git itself runs them.
        Command::new("git").current_dir(&part).arg("status").output().unwrap();
        assert!(ran.exists());
    }
}

/// Sets `command` in every setting of `repository` that names a command.
fn name_commands(repository: &Path, command: &Path) {
    fs::set_permissions(command, fs::Permissions::from_mode(0o755)).unwrap();
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.gitProxy",
        "core.editor",
        "core.pager",
        "core.askPass",
        "core.alternateRefsCommand",
        "credential.helper",
        "diff.external",
        "diff.x.command",
        "diff.x.textconv",
        "filter.x.clean",
        "filter.x.process",
        "filter.x.smudge",
        "gpg.program",
        "merge.x.driver",
        "remote.origin.uploadpack",
        "uploadpack.packObjectsHook",
    ] {
        git(repository, &["config", key, command.to_str().unwrap()]);
    }
    let hooks = repository.join(".git/commands");
    fs::create_dir(&hooks).unwrap();
    for hook in ["post-index-change", "post-checkout", "reference-transaction", "pre-auto-gc"] {
        symlink(command, hooks.join(hook)).unwrap();
    }
    git(repository, &["config", "core.hooksPath", hooks.to_str().unwrap()]);
    fs::write(repository.join(".git/info/attributes"), "* filter=x diff=x merge=x\n").unwrap();
}

/// Writes the present size and times of the file `name` into its index entry, so that the index claims that the file is unchanged.
fn vouch(root: &Path, name: &str) {
    let (at, path) = (root.join(name).symlink_metadata().unwrap(), root.join(".git/index"));
    let mut index = fs::read(&path).unwrap();
    let nanos = |part: i64| part as u32;
    let words = [
        at.ctime() as u32,
        nanos(at.ctime_nsec()),
        at.mtime() as u32,
        nanos(at.mtime_nsec()),
        at.dev() as u32,
        at.ino() as u32,
        0o100_644,
        at.uid(),
        at.gid(),
        at.size() as u32,
    ];
    let mut entry = 12;
    loop {
        let length = usize::from(u16::from_be_bytes([index[entry + 60], index[entry + 61]]) & 0xfff);
        if &index[entry + 62..entry + 62 + length] == name.as_bytes() {
            break;
        }
        entry += (62 + length + 8) / 8 * 8;
    }
    for (at, word) in words.into_iter().enumerate() {
        index[entry + 4 * at..entry + 4 * at + 4].copy_from_slice(&word.to_be_bytes());
    }
    // A checksum of zeros means none, as with `index.skipHash`; libgit2 and git accept it.
    let sum = index.len() - 20;
    index[sum..].fill(0);
    fs::write(&path, &index).unwrap();
    // The index becomes newer than all files, so that git does not compare their contents.
    let later = std::time::SystemTime::now() + std::time::Duration::from_mins(1);
    File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
}

#[test]
fn an_index_that_vouches_for_a_file_with_other_contents_hides_nothing() {
    for time in [1_000_000_000, 1, 0] {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        repository(&tree);
        assert_eq!(changed(&tree), [] as [&str; 0]);
        fs::write(tree.join("a/f"), "x2\n").unwrap();
        let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time);
        File::options().append(true).open(tree.join("a/f")).unwrap().set_modified(then).unwrap();
        vouch(&tree, "a/f");
        if time > 1 {
            assert_eq!(git(&tree, &["-c", "index.skipHash=true", "status", "--short"]), "", "git itself is deceived");
        }
        assert_eq!(changed(&tree), ["a/f"], "{time}");
        let to = dir.path().join("again");
        restored(&tree, &to);
        assert_eq!(fs::read_to_string(to.join("a/f")).unwrap(), "x2\n");
    }
}

#[test]
fn a_file_that_git_skips_was_deleted_unless_the_checkout_is_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    repository(&tree);
    git(&tree, &["update-index", "--skip-worktree", "b/f"]);
    assert_eq!(changed(&tree), [] as [&str; 0]);
    fs::remove_file(tree.join("b/f")).unwrap();
    assert_eq!(changed(&tree), ["b/f"]);
    let to = dir.path().join("again");
    restored(&tree, &to);
    assert!(!to.join("b/f").exists() && to.join("a/f").exists());
    git(&tree, &["sparse-checkout", "set", "--no-cone", "/a/", "/other"]);
    assert_eq!(changed(&tree), [] as [&str; 0]);
}

#[test]
fn files_where_a_submodule_lost_its_repository_are_a_change_and_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let [[tree, sub], _] = trees(dir.path());
    assert_eq!(changed(&tree), [] as [&str; 0]);
    let kept = dir.path().join("kept");
    fs::rename(sub.join(".git"), &kept).unwrap();
    fs::write(sub.join("a/f"), "other").unwrap();
    assert_eq!(changed(&tree), ["sub"]);
    let refused = snapshot(&tree, LIMIT).unwrap_err().to_string();
    assert!(refused.contains("sub` with the run") && refused.contains("git submodule update --init"), "{refused}");
    // A submodule that was never initialised has an empty directory, which is not a change.
    fs::remove_dir_all(&sub).unwrap();
    fs::create_dir(&sub).unwrap();
    assert_eq!(changed(&tree), [] as [&str; 0]);
    // A repository elsewhere is not the submodule, and is not read.
    fs::remove_dir(&sub).unwrap();
    symlink(dir.path().join("inner"), &sub).unwrap();
    assert_eq!(changed(&tree), ["sub"]);
    let refused = snapshot(&tree, LIMIT).unwrap_err().to_string();
    assert!(refused.contains("a symbolic link out of the work tree"), "{refused}");
    fs::remove_file(&sub).unwrap();
    fs::write(&sub, "a file").unwrap();
    assert_eq!(changed(&tree), ["sub"]);
    let to = dir.path().join("again");
    restored(&tree, &to);
    assert_eq!(fs::read_to_string(to.join("sub")).unwrap(), "a file");
}

#[test]
fn a_directory_that_became_a_link_is_kept_as_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    repository(&tree);
    fs::remove_dir_all(tree.join("b")).unwrap();
    symlink("a", tree.join("b")).unwrap();
    let to = dir.path().join("again");
    restored(&tree, &to);
    assert_eq!(fs::read_link(to.join("b")).unwrap(), Path::new("a"));
    assert_eq!(fs::read_to_string(to.join("a/f")).unwrap(), "a2\n");
}

/// The author of a directory can put anything into its `.git`.
#[test]
fn a_broken_repository_is_told_and_no_pipe_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (above, root) = (dir.path(), dir.path().join("tree"));
    // A broken repository must not be mistaken for a directory of the outer one.
    repository(above);
    let pipe = |path: &Path| drop(printed(Command::new("mkfifo").arg(path)));
    let own = root.join(".git");
    let refused = |words: &str, path: &Path| {
        let errors = [
            describe(&root.join("a")).unwrap_err(),
            snapshot(&root, LIMIT).unwrap_err(),
            source(&root, LIMIT).unwrap_err(),
            commit_at(&root.join("a/f"), &root, "HEAD").unwrap_err(),
        ];
        for error in errors {
            let said = error.to_string();
            assert!(said.contains(words) && said.contains(&format!("`{}`", path.display())), "{said}");
        }
    };
    let files =
        ["index", "HEAD", "config", "packed-refs", "refs/heads/main", "info/exclude", "objects/info/alternates"];
    for name in files {
        let _ = fs::remove_dir_all(&root);
        repository(&root);
        let path = own.join(name);
        let _ = fs::remove_file(&path);
        pipe(&path);
        refused("is neither a directory nor a file", &path);
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        refused("is neither a directory nor a file", &path);
    }
    fs::remove_dir_all(&root).unwrap();
    repository(&root);
    fs::write(root.join(".gitignore"), "out\n").unwrap();
    for place in ["a", "new", "out"] {
        for name in [".gitignore", ".gitattributes"] {
            fs::create_dir_all(root.join(place)).unwrap();
            let path = root.join(place).join(name);
            pipe(&path);
            let said = describe(&root).map_or_else(|error| error.to_string(), |_| String::new());
            assert_eq!(said.contains(&format!("cannot store `{}`", path.display())), place != "out", "{said}");
            fs::remove_file(&path).unwrap();
        }
    }
    fs::rename(own.join("HEAD"), own.join("gone")).unwrap();
    refused("has no `HEAD`", &own);
    fs::write(own.join("HEAD"), "garbage").unwrap();
    assert!(describe(&root).is_err());
    fs::remove_dir_all(&own).unwrap();
    pipe(&own);
    refused("is neither a directory nor a file", &own);
    fs::remove_file(&own).unwrap();
    fs::write(&own, "garbage").unwrap();
    refused("does not begin with `gitdir:`", &own);
    fs::write(&own, "gitdir: ../gone").unwrap();
    refused("does not exist", &own);
    fs::remove_file(&own).unwrap();
    symlink("gone", &own).unwrap();
    refused("No such file", &own);
    fs::remove_file(&own).unwrap();
    assert!(describe(&root).unwrap().is_some(), "the outer repository contains it");
}
