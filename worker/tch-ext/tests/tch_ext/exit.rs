//! A process ends without what was registered for its end before, with what is registered after, and with its exit code.
//!
//! The process is this same test, started again.

#![expect(unsafe_code, reason = "atexit, which the standard library lacks")]

use std::process::exit;

use lockstep_support::only_test;
use lockstep_tch_ext::exit::skip_static_destructors;

const CHILD: &str = "LOCKSTEP_TEST_CHILD";

/// Goes through C's buffer, which only the end of the process writes to a pipe.
extern "C" fn earlier() {
    // SAFETY: a string of C.
    unsafe { libc::printf(c"earlier".as_ptr()) };
}

extern "C" fn later() {
    // SAFETY: as above.
    unsafe { libc::printf(c"later".as_ptr()) };
}

#[test]
fn what_was_registered_before_does_not_run() {
    if std::env::var_os(CHILD).is_some() {
        // SAFETY: functions that are there as long as the process is.
        unsafe { libc::atexit(earlier) };
        skip_static_destructors();
        // SAFETY: as above.
        unsafe { libc::atexit(later) };
        exit(7);
    }
    let child = only_test("exit::what_was_registered_before_does_not_run").env(CHILD, "1").output().expect("starts");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains("later") && !said.contains("earlier"), "{said}");
    assert_eq!(child.status.code(), Some(7));
}
