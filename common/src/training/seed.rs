//! Seeds: every random number of a run is derived from the run's root seed.

use serde::{Deserialize, Serialize};

/// The purpose of a seed. The tags are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Initial weights of the model.
    Init,
    /// The order of samples in an epoch.
    Order,
    /// torch's generators in a training step, for example for dropout.
    Forward,
    /// Random transforms of one sample.
    Augment,
    /// Random numbers of users' programs.
    User,
    /// The split of a data set into training and validation samples.
    Split,
    /// torch's generators in an evaluation. They are separate, so that an evaluation does not change the training.
    Eval,
}

impl Stream {
    fn tag(self) -> u8 {
        match self {
            Self::Init => 0,
            Self::Order => 1,
            Self::Forward => 2,
            Self::Augment => 3,
            Self::User => 4,
            Self::Split => 5,
            Self::Eval => 6,
        }
    }
}

/// The seed of `stream` for `rank` at `counter`, which is a step or an epoch, depending on the stream.
///
/// Domain-separated blake3; pure and frozen: `golden/seeds.txt`.
pub fn derive(root: u64, stream: Stream, counter: u64, rank: u32) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("lockstep seed v1");
    hasher
        .update(&root.to_le_bytes())
        .update(&[stream.tag()])
        .update(&counter.to_le_bytes())
        .update(&rank.to_le_bytes());
    let mut seed = [0; 8];
    hasher.finalize_xof().fill(&mut seed);
    u64::from_le_bytes(seed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_differ_by_every_argument() {
        let mut seen = BTreeSet::new();
        for root in 0..4 {
            for stream in [Stream::Init, Stream::Order, Stream::Forward, Stream::Augment, Stream::User, Stream::Split] {
                for counter in 0..8 {
                    for rank in 0..8 {
                        assert!(seen.insert(derive(root, stream, counter, rank)));
                    }
                }
            }
        }
    }
}
