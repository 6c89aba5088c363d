//! What this process takes of the machine, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

/// CPU time and memory of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    at: Instant,
    cpu: Duration,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
}

impl Usage {
    /// Reads them; what the system does not tell is 0.
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            at: Instant::now(),
            cpu: cpu_time(&stat).unwrap_or_default(),
            rss_bytes: rss_bytes(&status).unwrap_or_default(),
        }
    }

    /// CPU time per wall time since `before`: 1.0 is one core busy.
    pub(crate) fn cpu_share(&self, before: &Self) -> f64 {
        let wall = self.at.duration_since(before.at).as_secs_f64();
        if wall > 0.0 { self.cpu.saturating_sub(before.cpu).as_secs_f64() / wall } else { 0.0 }
    }
}

/// User and system time. The kernel counts in hundredths of a second (`USER_HZ`), whatever its own tick is.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The second field, the program's name, may hold anything, and ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5 1000 2 18446744073709551615";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(rss_bytes("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!((cpu_time("x"), rss_bytes("")), (None, None));
    }

    #[test]
    fn this_process_has_memory_and_uses_the_processor() {
        let before = Usage::now();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(60) {
            std::hint::black_box(before.rss_bytes);
        }
        let after = Usage::now();
        assert!(after.rss_bytes > 100_000);
        assert!(after.cpu_share(&before) > 0.05, "{}", after.cpu_share(&before));
    }
}
