//! A log line that cannot be written is lost, and does not end the process.
//!
//! The process is this same test, started again with its standard error on a full disk.

use std::fs::File;
use std::process::exit;

use lockstep_support::only_test;

const CHILD: &str = "LOCKSTEP_TEST_CHILD";

#[test]
fn a_log_on_a_full_disk_ends_nobody() {
    if std::env::var_os(CHILD).is_some() {
        lockstep_host::logging::init("info").expect("a level");
        tracing::error!("nobody reads this");
        exit(7);
    }
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let child = only_test("a_log_on_a_full_disk_ends_nobody").env(CHILD, "1").stderr(full).status().expect("starts");
    assert_eq!(child.code(), Some(7));
}
