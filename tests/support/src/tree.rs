//! Git work trees for tests.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::printed;

/// Runs git in `dir`, and returns its standard output without surrounding white space.
///
/// # Panics
/// If git fails.
pub fn git(dir: &Path, arguments: &[&str]) -> String {
    let options = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"];
    printed(Command::new("git").current_dir(dir).args(options).args(arguments)).trim().to_owned()
}

/// Commits all files in `dir`, and makes `dir` a repository first if it is not one.
pub fn commit(dir: &Path, message: &str) {
    if !dir.join(".git").exists() {
        git(dir, &["init", "-q", "-b", "main"]);
    }
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", message]);
}

/// Creates a repository with a submodule. Both work trees differ from their commit: changed, deleted, binary and untracked files, and a
/// changed mode.
pub fn dirty_tree(root: &Path) {
    let library = root.with_file_name("library");
    for dir in [root, &library] {
        fs::create_dir_all(dir).unwrap();
        for name in ["edited", "deleted", "mode", "binary"] {
            fs::write(dir.join(name), name).unwrap();
        }
        commit(dir, "first");
    }
    git(root, &["submodule", "--quiet", "add", library.to_str().unwrap(), "library"]);
    git(root, &["commit", "-q", "-m", "with a library"]);
    git(root, &["tag", "v1"]);
    for dir in [root.to_owned(), root.join("library")] {
        fs::write(dir.join("edited"), "edited\n").unwrap();
        fs::remove_file(dir.join("deleted")).unwrap();
        fs::set_permissions(dir.join("mode"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("binary"), [0, 255, 13, 10, 0]).unwrap();
        fs::create_dir_all(dir.join("new/empty")).unwrap();
        fs::write(dir.join("new/file"), "untracked\n").unwrap();
    }
}
