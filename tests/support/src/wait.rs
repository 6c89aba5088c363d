//! Waiting for a value that comes by itself.

use std::thread;
use std::time::{Duration, Instant};

/// Looks until there is a value. Pauses three times as long as the look took, and 10 ms at least: many tests wait at once, and looks
/// that start a program would keep a processor busy.
///
/// # Panics
/// If there is none within `limit`.
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
