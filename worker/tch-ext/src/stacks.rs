//! The stack of a process that makes no progress.

use std::backtrace::Backtrace;
use std::io::{self, Write};

/// Makes the process write the stack of the thread that receives SIGUSR2 to standard error. That is the main thread, unless it blocks the
/// signal.
///
/// Send the signal only to a process that will be killed: the handler is not safe in a process that continues.
pub fn write_on_signal() {
    let handler = write_stack as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler is a function of the type that `signal` takes, and lives as long as the process.
    unsafe { libc::signal(libc::SIGUSR2, handler) };
}

/// The handler allocates and takes locks. If the interrupted thread holds one of them, it hangs here, and is killed all the same.
extern "C" fn write_stack(_: libc::c_int) {
    let stack = Backtrace::force_capture().to_string();
    // If standard error is closed, the stack is lost.
    writeln!(
        io::stderr(),
        "[this process makes no progress; its main thread, the innermost call last]\n{}",
        calls(&stack)
    )
    .ok();
}

/// The calls of a backtrace, one per line, the innermost last, because the end of a long output is kept.
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
