//! The end of a process that has loaded libtorch.
//!
//! When a process ends, libtorch takes its thousands of operators out of its tables again, one by one and for nobody. That is
//! two fifths of what a process that does nothing else costs.

use std::ffi::{c_int, c_void};
use std::ptr;

unsafe extern "C" {
    /// glibc's: as `atexit`, but it tells the exit code.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

/// From now on, the process ends without what has been registered for its end so far: the static destructors of its libraries
/// and their `atexit`. What is registered later still runs, and what was written through C's streams is written out.
pub fn skip_static_destructors() {
    // SAFETY: the function is there as long as the process is, and takes no argument. Without memory to note it in, the
    // process ends as any other.
    unsafe { on_exit(leave, ptr::null_mut()) };
}

extern "C" fn leave(code: c_int, _: *mut c_void) {
    // SAFETY: both are C's own; nothing runs after the second.
    unsafe {
        libc::fflush(ptr::null_mut());
        libc::_exit(code);
    }
}
