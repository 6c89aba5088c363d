//! CPU time, memory and I/O of this process, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

/// CPU time, memory and I/O of this process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    at: Instant,
    cpu: Duration,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// Page faults without a read from storage, since the process began.
    pub(crate) minor_faults: u64,
    /// Page faults with a read from storage, since the process began.
    pub(crate) major_faults: u64,
    /// Bytes read from storage, since the process began.
    pub(crate) read_bytes: u64,
    /// Bytes written to storage, since the process began.
    pub(crate) written_bytes: u64,
}

impl Usage {
    /// Reads the current values; a value that the system does not provide is 0.
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let (minor_faults, major_faults) = faults(&stat).unwrap_or_default();
        Self {
            minor_faults,
            major_faults,
            read_bytes: line(&io, "read_bytes:").unwrap_or_default(),
            written_bytes: line(&io, "write_bytes:").unwrap_or_default(),
            at: Instant::now(),
            cpu: cpu_time(&stat).unwrap_or_default(),
            rss_bytes: rss_bytes(&status).unwrap_or_default(),
        }
    }

    /// CPU time divided by wall time since `before`: 1.0 is one busy core.
    pub(crate) fn cpu_share(&self, before: &Self) -> f64 {
        let wall = self.at.duration_since(before.at).as_secs_f64();
        if wall > 0.0 { self.cpu.saturating_sub(before.cpu).as_secs_f64() / wall } else { 0.0 }
    }
}

/// User and system time. The kernel reports it in hundredths of a second (`USER_HZ`), whatever its own tick is.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The second field, the program's name, may contain anything, and ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// Minor and major page faults.
fn faults(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(7);
    let minor = fields.next()?.parse().ok()?;
    // The field between them counts the faults of children.
    Some((minor, fields.nth(1)?.parse().ok()?))
}

fn rss_bytes(status: &str) -> Option<u64> {
    Some(line(status, "VmRSS:")? * 1024)
}

/// The number in the line that begins with `name`.
pub(crate) fn line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 5 3 0 250 50 0 0 20 0 1 0 5 1000 2 18446744073709551615";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(rss_bytes("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(faults(stat), Some((100, 3)));
        assert_eq!(line("rchar: 5\nread_bytes: 4096\n", "read_bytes:"), Some(4096));
        assert_eq!((cpu_time("x"), rss_bytes(""), faults("x")), (None, None, None));
    }

    #[test]
    fn this_process_has_memory_and_uses_the_processor() {
        let before = Usage::now();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(60) {
            std::hint::black_box(before.rss_bytes);
        }
        let after = Usage::now();
        assert!(after.rss_bytes > 100_000 && after.minor_faults > 0);
        assert!(after.cpu_share(&before) > 0.05, "{}", after.cpu_share(&before));
    }
}
