//! What a process that gets no memory can say of it.

use std::fs;

use crate::observe::usage::{self, Usage};

/// What libtorch's allocators say, in lower case.
const REFUSED: [&str; 2] = ["out of memory", "can't allocate memory"];

/// Sizes that go with a failure in whose text memory was refused: what was asked for where only bytes are named, what this process
/// holds, and what the machine has.
pub(crate) fn of(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    REFUSED.iter().any(|words| lower.contains(words)).then(|| {
        let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |name| usage::line(&machine, name).unwrap_or_default();
        sizes(&lower, Usage::now().rss_bytes, kib("MemTotal:") << 10, kib("MemAvailable:") << 10)
    })
}

/// The same in words; `text` in lower case.
fn sizes(text: &str, held: u64, total: u64, available: u64) -> String {
    let asked = text.split_once("tried to allocate ").and_then(|(_, rest)| rest.split_once(" bytes")?.0.parse().ok());
    let asked = asked.map(|bytes: u64| format!("asked for {}; ", gib(bytes))).unwrap_or_default();
    format!(
        " ({asked}this process holds {} of the machine's {}, of which {} are available; a micro-batch is `batch.size` over `ranks`, and \
         more ranks make it smaller)",
        gib(held),
        gib(total),
        gib(available)
    )
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_memory_is_said_with_sizes_and_nothing_else_is() {
        assert_eq!(of("the loss of step 3 is NaN"), None);
        let said = of(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes.",
        );
        let said = said.expect("it names memory");
        assert!(said.starts_with(" (asked for 4.0 GiB; this process holds 0."), "{said}");
        assert!(!said.contains("machine's 0.0 GiB"), "{said}");
        // CUDA's words have all sizes of the device.
        assert!(
            of("CUDA out of memory. Tried to allocate 2.00 GiB.")
                .is_some_and(|said| said.starts_with(" (this process"))
        );
        assert_eq!(
            sizes("tried to allocate 536870912 bytes", 1 << 30, 3 << 30, 2 << 30),
            " (asked for 0.5 GiB; this process holds 1.0 GiB of the machine's 3.0 GiB, of which 2.0 GiB are available; a micro-batch is \
             `batch.size` over `ranks`, and more ranks make it smaller)"
        );
    }
}
