//! The identity of the processor, and its results for instructions whose results differ between processors.

use lockstep_common::{Digest, Domain};

/// A digest of the results of `RSQRTPS` and `RCPPS`. They are specified to 11 bits; the other bits differ between vendors. MKL's square
/// root, arc functions, tangent and some logarithms begin with these instructions, also on the code path that level `portable` pins.
#[cfg(target_arch = "x86_64")]
pub fn approximations() -> String {
    use std::arch::x86_64::{_mm_cvtss_f32, _mm_rcp_ss, _mm_rsqrt_ss, _mm_set_ss};
    digest_of(
        // SAFETY: every processor of this architecture has SSE.
        |value| unsafe { _mm_cvtss_f32(_mm_rsqrt_ss(_mm_set_ss(value))) },
        // SAFETY: as above.
        |value| unsafe { _mm_cvtss_f32(_mm_rcp_ss(_mm_set_ss(value))) },
    )
}

/// Other architectures have no such instructions; the digest is that of exact results.
#[cfg(not(target_arch = "x86_64"))]
pub fn approximations() -> String {
    digest_of(|value| value.sqrt().recip(), f32::recip)
}

/// Whether the processor has fused multiply-add, with one rounding. Without it, the C library uses other code for 64-bit functions.
pub fn fuses() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return true;
}

/// The processor's own description: family, model, stepping, and the words with its instruction sets. For machines whose system hides the
/// processor. `None` on other architectures.
#[cfg(target_arch = "x86_64")]
#[expect(unused_unsafe, reason = "the compiler may know that every processor of this architecture has the instruction")]
pub fn says() -> Option<String> {
    use std::arch::x86_64::__cpuid_count;
    // SAFETY: every processor of this architecture has the instruction; for an unknown leaf it returns arbitrary words.
    let leaf = |leaf, part| unsafe { __cpuid_count(leaf, part) };
    let (first, more, rest) = (leaf(1, 0), leaf(7, 0), leaf(7, 1));
    let [signature, sets] = [first.eax, first.ecx];
    Some(format!(
        "signature {signature:08x}, features {sets:08x} {:08x} {:08x} {:08x} {:08x} {:08x}",
        first.edx, more.ebx, more.ecx, more.edx, rest.eax
    ))
}

/// Other architectures have no such instruction.
#[cfg(not(target_arch = "x86_64"))]
pub fn says() -> Option<String> {
    None
}

/// The digest of the results of both functions for 2^17 values.
fn digest_of(root: impl Fn(f32) -> f32, reciprocal: impl Fn(f32) -> f32) -> String {
    let mut hasher = Domain::Blob.hasher();
    // From 1 up to 4: the results repeat with every second power of two.
    for value in (0..1_u32 << 17).map(|at| f32::from_bits((127 << 23) + (at << 7) + (at & 0x7f))) {
        hasher.update(&root(value).to_bits().to_le_bytes()).update(&reciprocal(value).to_bits().to_le_bytes());
    }
    Digest::of(&hasher).to_hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_known_by_the_bits_that_are_not_promised() {
        assert_eq!(approximations(), approximations());
        let exact = |value: f32| value.sqrt().recip();
        // Within the specification: one last bit of one result.
        let other = |value: f32| f32::from_bits(exact(value).to_bits() ^ u32::from(value.to_bits() == 0x3fc0_0000));
        assert_ne!(digest_of(exact, f32::recip), digest_of(other, f32::recip));
    }
}
