//! Runs a test in its own mount namespace: only the test sees its mounts, and they disappear with it.

use std::path::Path;
use std::process::Command;

use crate::{only_test, printed};

/// Environment variable that is set within the namespace.
const INSIDE: &str = "LOCKSTEP_TEST_NAMESPACE";

/// Whether the calling test runs in its own mount namespace. If not, this runs the test again in one, as a child process, and returns
/// false, so that the caller returns. `test` is the name of the test in its program. If the system allows no mount namespaces, it
/// prints `SKIPPED` and returns false.
///
/// # Panics
/// If the test fails in the namespace.
#[expect(clippy::print_stderr, reason = "what was not tested is to be seen")]
pub fn in_mount_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]);
        command
    };
    if !unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED {test}: this system gives no mount namespace (`unshare --map-root-user --mount`)");
        return false;
    }
    let inside = only_test(test);
    printed(unshare().arg(inside.get_program()).args(inside.get_args()).env(INSIDE, "1"));
    false
}

/// Creates the directory `path`, and mounts a tmpfs of `size` (such as `4m`) on it.
pub fn mount_small(path: &Path, size: &str) {
    std::fs::create_dir_all(path).expect("the test's directory is writable");
    printed(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path));
}
