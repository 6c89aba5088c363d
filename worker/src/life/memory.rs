//! Adds sizes to the message of a failed memory allocation.

use std::fs;

use crate::observe::usage::{self, Usage};

/// Words of libtorch's allocators for a failed allocation, in lower case.
const REFUSED: [&str; 2] = ["out of memory", "can't allocate memory"];

/// If `text` is the message of a failed allocation: the requested size (where the message has it in bytes), the memory of this process, and
/// the memory of the machine, in words.
pub(crate) fn of(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    REFUSED.iter().any(|words| lower.contains(words)).then(|| {
        let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |name| usage::line(&machine, name).unwrap_or_default();
        sizes(&lower, Usage::now().rss_bytes, kib("MemTotal:") << 10, kib("MemAvailable:") << 10)
    })
}

/// The sizes in words; `text` is in lower case.
fn sizes(text: &str, held: u64, total: u64, available: u64) -> String {
    let asked = text.split_once("tried to allocate ").and_then(|(_, rest)| rest.split_once(" bytes")?.0.parse().ok());
    let asked = asked.map(|bytes: u64| format!("requested {}; ", gib(bytes))).unwrap_or_default();
    format!(
        " ({asked}this process holds {}; the machine has {}, of which {} are available; lower `batch.size`, or raise `ranks`, for \
         smaller micro-batches)",
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
        assert!(said.starts_with(" (requested 4.0 GiB; this process holds 0."), "{said}");
        assert!(!said.contains("machine has 0.0 GiB"), "{said}");
        // CUDA's message has the sizes of the device already.
        assert!(
            of("CUDA out of memory. Tried to allocate 2.00 GiB.")
                .is_some_and(|said| said.starts_with(" (this process"))
        );
        assert_eq!(
            sizes("tried to allocate 536870912 bytes", 1 << 30, 3 << 30, 2 << 30),
            " (requested 0.5 GiB; this process holds 1.0 GiB; the machine has 3.0 GiB, of which 2.0 GiB are available; lower `batch.size`, \
             or raise `ranks`, for smaller micro-batches)"
        );
    }
}
