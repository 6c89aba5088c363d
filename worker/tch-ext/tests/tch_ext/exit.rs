//! A process ends without the exit handlers that were registered before the call, with those that are registered after it, and with its
//! exit code.
//!
//! The test starts itself as the process.

#![expect(unsafe_code, reason = "atexit, which the standard library lacks")]

use std::process::exit;

use lockstep_support::only_test;
use lockstep_tch_ext::exit::skip_static_destructors;

const CHILD: &str = "LOCKSTEP_TEST_CHILD";

/// Prints to C's buffer, which is written to a pipe only at the end of the process.
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
        // SAFETY: the functions live as long as the process.
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
