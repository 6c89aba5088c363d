//! A keyed permutation of `[0, n)`: a shuffle without a buffer, with access to any position in O(1).
//!
//! It is a balanced Feistel network over the smallest even number of bits that holds `n`, applied again until the result is below `n`
//! (cycle walking: Black & Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). The network's domain has at most `4 n`
//! elements, so a position takes at most four applications on average.

use crate::seed::{Stream, derive};

const ROUNDS: usize = 8;

/// Elements that the network processes at the same time.
const LANES: usize = 4;

/// A permutation of `[0, n)`. Frozen: `golden/permutation.txt`.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `[0, n)` with key `seed`.
    ///
    /// # Panics
    /// If `n` is 0. Callers reject empty data before.
    pub fn new(n: u64, seed: u64) -> Self {
        assert!(n > 0, "a permutation of nothing");
        let bits = (64 - (n - 1).leading_zeros()).max(2);
        let keys = std::array::from_fn(|round| derive(seed, Stream::Order, round as u64, 0));
        Self { n, half_bits: bits.div_ceil(2), keys }
    }

    /// The element at position `index` of the shuffled order.
    ///
    /// # Panics
    /// If `index` is not below `n`.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.n, "position {index} of {}", self.n);
        let mut one = [index];
        self.encrypt(&mut one);
        while one[0] >= self.n {
            self.encrypt(&mut one);
        }
        one[0]
    }

    /// [`Permutation::at`] for each of `indices`, in place. It is faster than single calls, because the processor computes several
    /// elements in parallel; the rounds of one element depend on each other.
    ///
    /// # Panics
    /// If an index is not below `n`.
    pub fn apply(&self, indices: &mut [u64]) {
        assert!(indices.iter().all(|index| *index < self.n), "positions {indices:?} of {}", self.n);
        let mut outside: Vec<usize> = (0..indices.len()).collect();
        while !outside.is_empty() {
            for places in outside.chunks(LANES) {
                let mut lanes = [0; LANES];
                lanes.iter_mut().zip(places).for_each(|(lane, place)| *lane = indices[*place]);
                self.encrypt(&mut lanes);
                lanes.iter().zip(places).for_each(|(lane, place)| indices[*place] = *lane);
            }
            outside.retain(|place| indices[*place] >= self.n);
        }
    }

    /// Applies the network once to `N` elements in parallel.
    fn encrypt<const N: usize>(&self, values: &mut [u64; N]) {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (values.map(|value| value >> self.half_bits), values.map(|value| value & mask));
        for key in self.keys {
            let next: [u64; N] = std::array::from_fn(|lane| left[lane] ^ (mix(right[lane] ^ key) & mask));
            (left, right) = (right, next);
        }
        *values = std::array::from_fn(|lane| (left[lane] << self.half_bits) | right[lane]);
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every input bit reaches every output bit.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_bijection(n: u64, seed: u64) -> bool {
        let permutation = Permutation::new(n, seed);
        let mut hit = vec![false; n as usize];
        (0..n).all(|index| !std::mem::replace(&mut hit[permutation.at(index) as usize], true))
    }

    #[test]
    fn it_is_a_bijection_for_one_primes_and_powers_of_two() {
        for n in [1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 64, 127, 128, 1009, 4096, 65_536, 65_537, 100_003] {
            assert!(is_bijection(n, 11), "{n}");
        }
    }

    #[test]
    fn many_at_once_are_the_same_as_one_by_one() {
        for n in [1, 2, 5, 64, 1009, 1 << 40] {
            let permutation = Permutation::new(n, 3);
            for count in [0, 1, 7, 8, 9, 100] {
                let indices: Vec<u64> = (0..count).map(|index| index * 7919 % n).collect();
                let mut all = indices.clone();
                permutation.apply(&mut all);
                assert_eq!(all, indices.iter().map(|&index| permutation.at(index)).collect::<Vec<_>>(), "{n} {count}");
            }
        }
    }

    #[test]
    fn it_stays_inside_huge_domains_and_does_not_collide() {
        for n in [1_000_000_000_000_u64, u64::MAX, (1 << 63) + 1] {
            let permutation = Permutation::new(n, 3);
            let seen: std::collections::BTreeSet<u64> = (0..20_000).map(|i| permutation.at(n - 1 - i)).collect();
            assert!(seen.len() == 20_000 && seen.iter().all(|&value| value < n));
        }
    }

    #[test]
    fn it_looks_shuffled() {
        // The mean distance of an element from its place is n/3 in a random permutation.
        let (n, permutation) = (10_000, Permutation::new(10_000, 5));
        let mean = (0..n).map(|i| permutation.at(i).abs_diff(i)).sum::<u64>() / n;
        assert!((3_100..3_600).contains(&mean), "{mean}");
        assert!((0..n).filter(|&i| permutation.at(i) == Permutation::new(n, 6).at(i)).count() < 10);
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_bijection(n in 1_u64..3_000, seed: u64) {
            proptest::prop_assert!(is_bijection(n, seed));
        }
    }
}
