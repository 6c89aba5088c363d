//! The end of a process that has loaded libtorch.
//!
//! When a process ends, libtorch takes its thousands of operators out of its tables again, one by one and for nobody. That is
//! two fifths of what a process that does nothing else costs.

use std::ffi::{c_int, c_void};
use std::ptr;

unsafe extern "C" {
    /// glibc's: as `atexit`, but it tells the exit code.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn lte_leave(code: i32) -> !;
}

/// From now on, the process ends without what has been registered for its end so far: the static destructors of its libraries
/// and their `atexit`. What is registered later still runs, and what was written to the standard streams of C and C++ is
/// written out.
///
/// For programs whose libraries are known. Does nothing where `LD_PRELOAD` has brought one that is not: a profiler writes its
/// results at the end.
pub fn skip_static_destructors() {
    if std::env::var_os("LD_PRELOAD").is_none() {
        // SAFETY: the function is there as long as the process is, and takes no argument. Without memory to note it in, the
        // process ends as any other.
        unsafe { on_exit(leave, ptr::null_mut()) };
    }
}

extern "C" fn leave(code: c_int, _: *mut c_void) {
    // SAFETY: nothing runs after it.
    unsafe { lte_leave(code) }
}

/// A write beyond a limit on the size of files (`ulimit -f`) is an error from now on, as on a full disk, and not the end.
pub fn survive_file_size_limit() {
    // SAFETY: sets a disposition and no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
