//! Values with a checksum behind them: a bit that was flipped on the disk is found where it is read.
//!
//! The sum covers where a value stands, too: one that got to another place is not what belongs there.

use lockstep_common::{Digest, Domain};

/// Bytes of a checksum.
const SUM_BYTES: usize = 8;

/// `value` as it is kept at `place`.
pub(super) fn seal(place: &[u8], value: &[u8]) -> Vec<u8> {
    [value, &sum(place, value).to_le_bytes()].concat()
}

/// What was kept at `place`, if it is as it was.
pub(super) fn opened<'a>(place: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, found) = sealed.split_at_checked(sealed.len().checked_sub(SUM_BYTES)?)?;
    (found == sum(place, value).to_le_bytes()).then_some(value)
}

/// The checksum of `value` at `place`.
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
