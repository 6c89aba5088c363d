//! Waits for a value with a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// Calls `look` until it returns a value; `what` names the value in the panic message. Between two calls it pauses for three times the
/// duration of a call, and at least 10 ms: many tests wait at the same time, and a `look` that starts a program keeps a processor busy.
///
/// # Panics
/// If there is no value within `limit`.
pub fn wait_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let start = Instant::now();
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        thread::sleep((3 * start.elapsed()).max(Duration::from_millis(10)));
    }
}
