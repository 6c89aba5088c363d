//! A test in a mount namespace of its own: what it mounts, nobody else sees, and it is gone with the test.

use std::path::Path;
use std::process::Command;

use crate::{only_test, printed};

/// Set inside.
const INSIDE: &str = "LOCKSTEP_TEST_NAMESPACE";

/// Whether the calling test, named `test` in its program, is in a mount namespace of its own. If not, it is run again in one,
/// and has passed with it; where the system gives none, that is said, and nothing was tested.
///
/// # Panics
/// If the test fails inside.
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

/// A file system in memory of this size, as `4m`, at `path`, which is made.
pub fn mount_small(path: &Path, size: &str) {
    std::fs::create_dir_all(path).expect("the test's directory is writable");
    printed(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path));
}
