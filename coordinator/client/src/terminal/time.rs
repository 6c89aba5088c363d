//! Durations and times as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `45 s`, `12 min 05 s`, `3 h 05 min` or `2 d 4 h`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The duration of a run: as [`span`], in milliseconds below 1 s, with one decimal below 10 s.
pub(crate) fn lasted(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        1_000..10_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => span(duration),
    }
}

/// `1:20` or `2:03:20`: minutes and seconds, after the hours if there are any.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// How long ago `at_ms` was, in milliseconds since the Unix epoch: `45 s ago`. A time in the future is `0 s ago`.
pub(crate) fn ago(at_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} ago", span(now.saturating_sub(Duration::from_millis(at_ms))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        let text = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([text(5), text(65), text(3_900), text(180_000)], ["5 s", "1 min 05 s", "1 h 05 min", "2 d 2 h"]);
        let text = |millis| lasted(Duration::from_millis(millis));
        assert_eq!([text(0), text(420), text(1_260), text(65_000)], ["0 ms", "420 ms", "1.3 s", "1 min 05 s"]);
        let text = |seconds| clock(Duration::from_secs(seconds));
        assert_eq!([text(5), text(80), text(7_400)], ["0:05", "1:20", "2:03:20"]);
    }
}
