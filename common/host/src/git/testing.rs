//! Repositories for tests.

use std::path::Path;
use std::process::Command;

/// Runs git in `dir`; panics if it fails.
pub(super) fn git(dir: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    let status = Command::new("git").current_dir(dir).args(identity).args(arguments).output().unwrap();
    assert!(status.status.success(), "{status:?}");
}
