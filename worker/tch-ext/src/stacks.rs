//! Where a process stands that does not get on.

use std::backtrace::Backtrace;
use std::io::{self, Write};

/// From now on the process writes the stack of the thread that SIGUSR2 reaches, which is the main thread if it can be, to
/// standard error.
///
/// For a process that is about to be ended: what the handler does is not safe in a process that goes on.
pub fn write_on_signal() {
    let handler = write_stack as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler is a function of the form that `signal` takes, and lives as long as the process.
    unsafe { libc::signal(libc::SIGUSR2, handler) };
}

/// It allocates and takes locks. If the thread was interrupted while it held one of them, it hangs here as it hung before, and is
/// ended all the same.
extern "C" fn write_stack(_: libc::c_int) {
    let stack = Backtrace::force_capture().to_string();
    // Nobody is left to hear of a standard error that is closed.
    writeln!(
        io::stderr(),
        "[this process makes no progress; its main thread, the innermost call last]\n{}",
        calls(&stack)
    )
    .ok();
}

/// The calls of a backtrace, one a line, the innermost last: of an output that is cut the end is kept.
fn calls(stack: &str) -> String {
    let frame = |line: &str| {
        let (number, name) = line.trim_start().split_once(": ")?;
        number.parse::<u32>().ok()?;
        Some(format!("  {name}\n"))
    };
    let mut calls: Vec<String> = stack.lines().filter_map(frame).collect();
    calls.reverse();
    calls.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_and_the_innermost_stands_last() {
        let own = Backtrace::force_capture().to_string();
        let all = calls(&own);
        let (caller, rest) = all.split_once("calls_are_named_and_the_innermost_stands_last").expect("this function");
        assert!(caller.contains("test") && !rest.contains("main"), "{all}");
        assert_eq!(calls("   0: a::b\n             at x.rs:1:2\n   1: c\nno frame\n"), "  c\n  a::b\n");
    }
}
