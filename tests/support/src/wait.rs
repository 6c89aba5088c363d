//! Waiting for a value that comes by itself.

use std::thread;
use std::time::{Duration, Instant};

/// Looks again and again until there is a value.
///
/// # Panics
/// If there is none within `limit`.
pub fn wait_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
