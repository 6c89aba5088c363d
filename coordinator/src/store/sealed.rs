//! Values with a checksum at their end, which detects changed bits when a value is read.
//!
//! The checksum covers the place of the value (its key), too, so that a value under another key is detected.

use lockstep_common::{Digest, Domain};

/// Length of a checksum, in bytes.
const SUM_BYTES: usize = 8;

/// `value` with its checksum for `place`.
pub(super) fn seal(place: &[u8], value: &[u8]) -> Vec<u8> {
    [value, &sum(place, value).to_le_bytes()].concat()
}

/// The value without its checksum; `None` if the checksum does not match.
pub(super) fn opened<'a>(place: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, found) = sealed.split_at_checked(sealed.len().checked_sub(SUM_BYTES)?)?;
    (found == sum(place, value).to_le_bytes()).then_some(value)
}

/// The checksum of `value` at `place`: the first eight bytes of a digest, little-endian.
pub(super) fn sum(place: &[u8], value: &[u8]) -> u64 {
    let mut hasher = Domain::Row.hasher();
    hasher.update(&(place.len() as u64).to_le_bytes()).update(place).update(value);
    let digest = Digest::of(&hasher);
    let (first, _) = digest.as_bytes().split_first_chunk::<SUM_BYTES>().expect("a digest is longer");
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_and_another_place_are_found() {
        let sealed = seal(b"run/a", b"value");
        assert_eq!(opened(b"run/a", &sealed), Some(&b"value"[..]));
        assert_eq!(opened(b"run/b", &sealed), None);
        for bit in 0..8 * sealed.len() {
            let mut other = sealed.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(b"run/a", &other), None, "bit {bit}");
        }
        assert_eq!((opened(b"x", b""), opened(b"x", b"1234567")), (None, None));
        assert_eq!(opened(b"x", &seal(b"x", b"")), Some(&b""[..]));
    }
}
