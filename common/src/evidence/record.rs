//! The record: a run's evidence for each step. Digests are chained, so that equal digests mean equal histories.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Domain};

/// The record of one step. Floats are stored as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Optimizer steps completed, including this one.
    pub step: u64,
    /// Mean loss over the batch: bits of an f64.
    pub loss: u64,
    /// Norm of the mean gradient before clipping: bits of an f64.
    pub grad_norm: u64,
    /// Learning rate: bits of an f64.
    pub lr: u64,
    /// Hash of the sample positions, see [`positions`].
    pub positions: u64,
    /// Digest of all tensors' fingerprints, see [`Fingerprints::digest`]; 0 if this step has none.
    pub fingerprint: u64,
    /// Hash of the samples' bytes, see [`crate::contents::Contents`]; 0 if not known, as in older records.
    #[serde(default)]
    pub contents: u64,
}

impl Evidence {
    /// The record's digest after this step. `before` is its digest after the previous step.
    pub fn chain(&self, before: &Digest) -> Digest {
        let mut hasher = Domain::Record.hasher();
        hasher.update(before.as_bytes());
        for word in [self.step, self.loss, self.grad_norm, self.lr, self.positions, self.fingerprint] {
            hasher.update(&word.to_le_bytes());
        }
        if self.contents != 0 {
            hasher.update(&self.contents.to_le_bytes());
        }
        Digest::of(&hasher)
    }

    /// Fields that differ between two steps, as name, own value and other value, in the order in which a step computes them.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, u64, u64)> {
        // A hash that one step lacks is not a difference.
        let if_known = |a: u64, b: u64| if a == 0 || b == 0 { (0, 0) } else { (a, b) };
        let (contents, others) = if_known(self.contents, other.contents);
        let (fingerprint, of_other) = if_known(self.fingerprint, other.fingerprint);
        let both = [
            ("step", self.step, other.step),
            ("samples", self.positions, other.positions),
            (SAMPLE_BYTES, contents, others),
            ("loss", self.loss, other.loss),
            ("gradient norm", self.grad_norm, other.grad_norm),
            ("learning rate", self.lr, other.lr),
            ("fingerprint", fingerprint, of_other),
        ];
        both.into_iter().filter(|(_, a, b)| a != b).collect()
    }
}

/// Name of [`Evidence::contents`] in [`Evidence::differences`].
pub const SAMPLE_BYTES: &str = "sample bytes";

/// The record's digest before the first step.
pub fn chain_start() -> Digest {
    Domain::Record.digest(b"")
}

/// Hash of the sample positions that all ranks read in one step, in rank order. It does not depend on the number of ranks.
pub fn positions(all: &[u64]) -> u64 {
    let mut bytes = Vec::with_capacity(size_of_val(all));
    for position in all {
        bytes.extend_from_slice(&position.to_le_bytes());
    }
    first_word(&Domain::Samples.digest(&bytes))
}

/// Fingerprints of tensors, in the order in which a forward pass uses the tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// `rank/<rank>`: the rank's gradient before the reduction. `model/<name>`, `grad/<name>`, `optimizer/<state>/<name>`,
    /// `buffer/<name>`: values after the step.
    pub names: Vec<String>,
    /// The fingerprint for each name: a sum over all elements, each element's bits mixed with its index.
    pub sums: Vec<u64>,
}

impl Fingerprints {
    /// Digest of all names and fingerprints; never 0.
    pub fn digest(&self) -> u64 {
        digest_of_sums(&self.names, &self.sums)
    }

    /// Tensors that differ, as name, own fingerprint and other fingerprint. A tensor that only one side has differs, too.
    pub fn differences<'a>(&'a self, other: &'a Self) -> Vec<(&'a str, Option<u64>, Option<u64>)> {
        let (here, there) = (self.by_name(), other.by_name());
        let only_there = other.names.iter().filter(|name| !here.contains_key(name.as_str()));
        let names = self.names.iter().chain(only_there).map(String::as_str);
        let both = names.map(|name| (name, here.get(name).copied(), there.get(name).copied()));
        both.filter(|(_, here, there)| here != there).collect()
    }

    fn by_name(&self) -> BTreeMap<&str, u64> {
        self.names.iter().map(String::as_str).zip(self.sums.iter().copied()).collect()
    }
}

/// [`Fingerprints::digest`] of the tensors `names` with fingerprints `sums`.
pub fn digest_of_sums(names: &[String], sums: &[u64]) -> u64 {
    let mut hasher = Domain::Fingerprint.hasher();
    for (name, sum) in names.iter().zip(sums) {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(&sum.to_le_bytes());
    }
    first_word(&Digest::of(&hasher)).max(1)
}

fn first_word(digest: &Digest) -> u64 {
    let [bytes, ..] = digest.as_bytes().as_chunks::<8>().0 else { unreachable!("a digest has 32 bytes") };
    u64::from_le_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Evidence =
        Evidence { step: 1, loss: 2, grad_norm: 3, lr: 4, positions: 5, fingerprint: 6, contents: 7 };

    #[test]
    fn every_part_of_a_step_changes_the_chain_and_is_named() {
        let others = [
            ("step", Evidence { step: 9, ..STEP }),
            ("loss", Evidence { loss: 9, ..STEP }),
            ("gradient norm", Evidence { grad_norm: 9, ..STEP }),
            ("learning rate", Evidence { lr: 9, ..STEP }),
            ("samples", Evidence { positions: 9, ..STEP }),
            ("fingerprint", Evidence { fingerprint: 9, ..STEP }),
            (SAMPLE_BYTES, Evidence { contents: 9, ..STEP }),
        ];
        for (name, other) in others {
            assert_ne!(STEP.chain(&chain_start()), other.chain(&chain_start()), "{name}");
            let differences = STEP.differences(&other);
            assert!(matches!(differences[..], [(named, _, 9)] if named == name), "{name}: {differences:?}");
        }
        assert_ne!(STEP.chain(&chain_start()), STEP.chain(&STEP.chain(&chain_start())));
        for lacks in [Evidence { fingerprint: 0, ..STEP }, Evidence { contents: 0, ..STEP }] {
            assert_eq!(STEP.differences(&lacks), [], "one of them was not taken");
            assert_eq!(lacks.differences(&STEP), []);
        }
        let data = STEP.differences(&Evidence { contents: 9, loss: 9, ..STEP });
        assert_eq!(data, [(SAMPLE_BYTES, 7, 9), ("loss", 2, 9)], "differences are in the order of computation");
    }

    #[test]
    fn positions_count_in_their_order() {
        assert_eq!(positions(&[1, 2, 3]), positions(&[1, 2, 3]));
        for other in [&[1, 3, 2][..], &[1, 2], &[1, 2, 3, 0], &[]] {
            assert_ne!(positions(&[1, 2, 3]), positions(other), "{other:?}");
        }
    }

    #[test]
    fn tensors_that_differ_are_named_in_order() {
        let fingerprints = |sums: &[(&str, u64)]| Fingerprints {
            names: sums.iter().map(|(name, _)| (*name).to_owned()).collect(),
            sums: sums.iter().map(|(_, sum)| *sum).collect(),
        };
        let a = fingerprints(&[("model/b", 1), ("grad/b", 2), ("model/a", 3), ("buffer/x", 4)]);
        let b = fingerprints(&[("model/b", 1), ("grad/b", 9), ("model/a", 8), ("buffer/y", 4)]);
        assert_eq!(
            a.differences(&b),
            [
                ("grad/b", Some(2), Some(9)),
                ("model/a", Some(3), Some(8)),
                ("buffer/x", Some(4), None),
                ("buffer/y", None, Some(4))
            ]
        );
        assert_eq!(a.differences(&a), []);
        assert_ne!(a.digest(), b.digest());
    }
}
