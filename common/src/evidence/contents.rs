//! A 64-bit hash of the bytes of samples, for the record. Equal samples have equal hashes, whichever ranks and processes read them.
//! Hot: two multiplications for 32 bytes, no allocation.
//!
//! Each row of each array is hashed with its row number and its array number. The hashes are added modulo 2^64, so that their order
//! does not matter. Frozen: `golden/contents.txt`. The hash detects damage; it does not protect against forgery.

/// Fractional bits of square roots: constants without a pattern.
const KEYS: [u64; 4] = [0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];

/// Bytes that one round consumes.
const BLOCK: usize = 32;

/// The sum of the hashes of all rows so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents(u64);

impl Contents {
    /// Adds row `row` of array `array`, whose contents are `bytes`. Array 0 has the batch's inputs.
    #[inline]
    pub fn add(&mut self, array: u64, row: u64, bytes: &[u8]) {
        let mut lanes = [mix(row ^ KEYS[0], array ^ KEYS[1]), KEYS[2]];
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            lanes = round(block, lanes);
        }
        if !rest.is_empty() {
            let mut block = [0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            lanes = round(&block, lanes);
        }
        let word = mix(lanes[0] ^ bytes.len() as u64, lanes[1] ^ KEYS[3]);
        self.0 = self.0.wrapping_add(word);
    }

    /// Adds all rows of `others`.
    pub fn join(&mut self, others: Self) {
        self.0 = self.0.wrapping_add(others.0);
    }

    /// The hash; never 0, which means that the bytes of the samples are not known.
    pub fn word(self) -> u64 {
        self.0.max(1)
    }

    /// The hash of all samples, from the hashes of disjoint parts; 0 if one of them is 0.
    pub fn of_parts(parts: impl IntoIterator<Item = u64>) -> u64 {
        let add = |sum: u64, part: u64| (part != 0).then(|| sum.wrapping_add(part));
        parts.into_iter().try_fold(0, add).map_or(0, |sum| Self(sum).word())
    }
}

#[inline]
fn round(block: &[u8; BLOCK], lanes: [u64; 2]) -> [u64; 2] {
    let [first, second, third, fourth] = block.as_chunks::<8>().0 else { unreachable!("a block has four words") };
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    [mix(word(first) ^ KEYS[0], word(second) ^ lanes[0]), mix(word(third) ^ KEYS[1], word(fourth) ^ lanes[1])]
}

/// Exclusive or of both halves of the 128-bit product.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(u64, u64, &[u8])]) -> u64 {
        let mut contents = Contents::default();
        for (array, row, bytes) in rows {
            contents.add(*array, *row, bytes);
        }
        contents.word()
    }

    #[test]
    fn every_bit_counts_and_every_place_and_every_length() {
        let bytes: Vec<u8> = (0..101).collect();
        let whole = of(&[(0, 7, &bytes)]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(&[(0, 7, &flipped)]), whole, "bit {bit}");
        }
        assert_ne!(of(&[(1, 7, &bytes)]), whole);
        assert_ne!(of(&[(0, 8, &bytes)]), whole);
        for length in [0, 31, 32, 33, 64, 100] {
            assert_ne!(of(&[(0, 7, &bytes[..length])]), whole, "{length}");
        }
        let padded = [&bytes[..], &[0]].concat();
        assert_ne!(of(&[(0, 7, &padded)]), whole, "zeros at the end");
    }

    #[test]
    fn parts_give_the_word_of_the_whole_in_any_order() {
        let rows: [(u64, u64, &[u8]); 4] = [(0, 1, b"one"), (0, 2, b"two"), (1, 1, b"a"), (1, 2, b"b")];
        let whole = of(&rows);
        assert_eq!(of(&[rows[3], rows[0], rows[2], rows[1]]), whole);
        let (first, second) = (of(&rows[..1]), of(&rows[1..]));
        assert_eq!(Contents::of_parts([first, second]), whole);
        assert_eq!(Contents::of_parts([second, first]), whole);
        assert_eq!(Contents::of_parts([first, 0]), 0, "one part is not known");
        let swapped = of(&[(0, 1, b"two"), (0, 2, b"one"), rows[2], rows[3]]);
        assert_ne!(swapped, whole);
    }
}
