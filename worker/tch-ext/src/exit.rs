//! The end of a process that has loaded libtorch.
//!
//! When a process ends, libtorch removes its thousands of operators from its tables, one by one, which is useless. It takes two fifths of
//! the time of a process that does nothing else.

use std::ffi::{c_int, c_void};
use std::ptr;

unsafe extern "C" {
    /// glibc's function: as `atexit`, but the callback gets the exit code.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn lte_leave(code: i32) -> !;
}

/// Makes the process end without the handlers that were registered before this call: static destructors of libraries, and `atexit`
/// handlers. Handlers that are registered later still run, and the standard streams of C and C++ are flushed.
///
/// Only for programs whose libraries are known. Has no effect if `LD_PRELOAD` is set, because preloaded libraries, such as profilers, may
/// write their results at the end of the process.
pub fn skip_static_destructors() {
    if std::env::var_os("LD_PRELOAD").is_none() {
        // SAFETY: the function lives as long as the process, and takes no argument. If it cannot be registered, the process ends as
        // usual.
        unsafe { on_exit(leave, ptr::null_mut()) };
    }
}

extern "C" fn leave(code: c_int, _: *mut c_void) {
    // SAFETY: nothing runs after it.
    unsafe { lte_leave(code) }
}

/// Makes a write beyond the limit on file sizes (`ulimit -f`) return an error, as on a full disk, instead of ending the process.
pub fn survive_file_size_limit() {
    // SAFETY: sets a signal's disposition, and no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
