//! The processor's floating-point mode: how results are rounded, and whether subnormal numbers count as zero.
//!
//! Each thread has its own mode, and inherits it from the thread that starts it. A library that was built with `-ffast-math` changes the
//! mode of the thread that loads it.

use crate::Error;

/// The value of [`describe`] in a process that computes according to IEEE 754.
pub const DEFAULT: &str = "round to nearest, subnormals kept";

/// Sets the default mode in this thread, and in the threads in which its operators compute.
pub fn set_default() {
    // SAFETY: takes no argument, and writes a register of each thread.
    unsafe { lte_float_mode_set() };
}

/// The mode of this thread and of the threads in which its operators compute: [`DEFAULT`], or the mode of a thread that differs.
pub fn describe() -> String {
    let mut expected = 0;
    // SAFETY: writes one number.
    let found = unsafe { lte_float_mode_get(&raw mut expected) };
    if found == expected { DEFAULT.to_owned() } else { words(found) }
}

/// Checks that the mode is [`DEFAULT`] in all these threads.
///
/// # Errors
/// `FloatMode` with the mode of a thread that differs.
pub fn check() -> Result<(), Error> {
    match describe() {
        mode if mode == DEFAULT => Ok(()),
        mode => Err(Error::FloatMode { found: mode, needed: DEFAULT }),
    }
}

/// Whether the mode can be read and set on this kind of processor.
pub const KNOWN: bool = cfg!(target_arch = "x86_64");

/// The value of an MXCSR register in words. Part of the numerics fingerprint: do not change the words.
fn words(mode: u32) -> String {
    let rounding = ["round to nearest", "round down", "round up", "round to zero"][((mode >> 13) & 3) as usize];
    let flags = [
        (1 << 15, "results that are subnormal flushed to zero"),
        (1 << 6, "operands that are subnormal taken as zero"),
    ];
    let flags = flags.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, words)| words);
    let words: Vec<&str> = std::iter::once(rounding).chain(flags).collect();
    format!("{} (MXCSR {mode:#06x})", words.join(", "))
}

unsafe extern "C" {
    fn lte_float_mode_set();
    fn lte_float_mode_get(expected: *mut u32) -> u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_told_in_words() {
        assert_eq!(words(0x1f80), "round to nearest (MXCSR 0x1f80)");
        let flushed = "round to nearest, results that are subnormal flushed to zero, operands that are subnormal taken as \
                       zero (MXCSR 0x9fc0)";
        assert_eq!(words(0x9fc0), flushed);
        assert_eq!(words(0x7f80), "round to zero (MXCSR 0x7f80)");
    }
}
