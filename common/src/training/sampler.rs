//! The sampler: the samples that a rank reads at a step. Its only state is the step number.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::permutation::Permutation;
use crate::seed::{Stream, derive};

/// Treatment of the samples at the end of an epoch that do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// This epoch does not read them.
    #[default]
    Drop,
    /// Samples from the beginning of the same epoch fill the batch, so they are read twice.
    Pad,
}

/// Why a sampler cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// The ranks' micro-batches would have different sizes.
    #[error("`batch.size` = {batch} is not divisible by `ranks` = {ranks}")]
    BatchNotDivisible {
        /// Global batch size.
        batch: u64,
        /// Number of ranks.
        ranks: u32,
    },
    /// An epoch has less than one batch.
    #[error(
        "the data has {samples} samples, less than one batch of {batch}: lower `batch.size`, or set `batch.last = \"pad\"`"
    )]
    TooFewSamples {
        /// Number of training samples.
        samples: u64,
        /// Global batch size.
        batch: u64,
    },
}

/// The order of samples of a whole run.
///
/// The positions of an epoch are split into batches, and each batch into consecutive ranges for the ranks. The result depends on
/// `(seed, epoch, step, rank)` alone. Frozen: `golden/sampler.txt`.
#[derive(Clone, Debug)]
pub struct Sampler {
    samples: u64,
    batch: u64,
    ranks: u32,
    seed: u64,
    shuffle: bool,
    steps_per_epoch: u64,
}

impl Sampler {
    /// A sampler over `samples` training samples; all `ranks` together read `batch` of them in a step. `seed` is the run's root seed.
    ///
    /// # Errors
    /// `BatchNotDivisible` if `ranks` does not divide `batch`; `TooFewSamples` if an epoch would have no step.
    pub fn new(
        samples: u64,
        batch: u64,
        ranks: u32,
        seed: u64,
        shuffle: bool,
        last: LastBatch,
    ) -> Result<Self, SamplerError> {
        if ranks == 0 || batch == 0 || !batch.is_multiple_of(u64::from(ranks)) {
            return Err(SamplerError::BatchNotDivisible { batch, ranks });
        }
        let steps_per_epoch = match last {
            LastBatch::Drop => samples / batch,
            LastBatch::Pad => samples.div_ceil(batch),
        };
        if steps_per_epoch == 0 {
            return Err(SamplerError::TooFewSamples { samples, batch });
        }
        Ok(Self { samples, batch, ranks, seed, shuffle, steps_per_epoch })
    }

    /// Number of logical ranks.
    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Optimizer steps in one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// The epoch of the next step when `step` steps are completed.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch
    }

    /// Number of samples that one rank reads in one step.
    pub fn micro_batch(&self) -> u64 {
        self.batch / u64::from(self.ranks)
    }

    /// Sample positions that `rank` reads in the next step when `step` steps are completed. The positions of all ranks, one after
    /// another, are the batch.
    pub fn positions(&self, step: u64, rank: u32) -> Vec<u64> {
        self.in_order(step, rank..rank + 1, self.order(self.epoch(step)).as_ref())
    }

    /// The permutation of an epoch; `None` if samples are not shuffled.
    fn order(&self, epoch: u64) -> Option<Permutation> {
        self.shuffle.then(|| Permutation::new(self.samples, derive(self.seed, Stream::Order, epoch, 0)))
    }

    fn in_order(&self, step: u64, ranks: Range<u32>, order: Option<&Permutation>) -> Vec<u64> {
        assert!(ranks.end <= self.ranks, "ranks {ranks:?} of {}", self.ranks);
        let begin = (step % self.steps_per_epoch) * self.batch;
        let of = |rank: u32| begin + u64::from(rank) * self.micro_batch();
        let mut positions: Vec<u64> =
            (of(ranks.start)..of(ranks.end)).map(|position| position % self.samples).collect();
        if let Some(order) = order {
            order.apply(&mut positions);
        }
        positions
    }
}

/// Reads a sampler's positions step by step. It keeps the permutation of the epoch, which takes longer to make than a position.
#[derive(Clone, Debug)]
pub struct Cursor {
    sampler: Sampler,
    /// Number and permutation of the epoch that was read last.
    order: Option<(u64, Option<Permutation>)>,
}

impl Cursor {
    /// A cursor over `sampler`'s positions.
    pub fn new(sampler: Sampler) -> Self {
        Self { sampler, order: None }
    }

    /// The sampler whose positions it reads.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// The positions of each of `ranks` as [`Sampler::positions`] returns them, one rank after another.
    pub fn positions(&mut self, step: u64, ranks: Range<u32>) -> Vec<u64> {
        let epoch = self.sampler.epoch(step);
        let sampler = &self.sampler;
        let (_, order) = match self.order.take().filter(|(of, _)| *of == epoch) {
            Some(known) => self.order.insert(known),
            None => self.order.insert((epoch, sampler.order(epoch))),
        };
        sampler.in_order(step, ranks, order.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_partial_batch_is_dropped_or_filled_from_the_epochs_beginning() {
        let drop = Sampler::new(10, 4, 2, 1, true, LastBatch::Drop).unwrap();
        assert_eq!(drop.steps_per_epoch(), 2);
        let pad = Sampler::new(10, 4, 2, 1, false, LastBatch::Pad).unwrap();
        assert_eq!(pad.steps_per_epoch(), 3);
        assert_eq!((pad.positions(2, 0), pad.positions(2, 1)), (vec![8, 9], vec![0, 1]));
        assert_eq!((pad.epoch(2), pad.epoch(3)), (0, 1), "the boundary belongs to the next epoch");
    }

    #[test]
    fn an_epoch_without_a_step_is_refused() {
        let error = Sampler::new(3, 4, 2, 1, true, LastBatch::Drop).unwrap_err();
        assert_eq!(error, SamplerError::TooFewSamples { samples: 3, batch: 4 });
        assert!(Sampler::new(3, 4, 2, 1, true, LastBatch::Pad).is_ok());
        assert!(Sampler::new(0, 4, 2, 1, true, LastBatch::Pad).is_err());
        assert!(Sampler::new(9, 4, 3, 1, true, LastBatch::Pad).is_err());
    }

    proptest! {
        /// In an epoch exactly one rank reads each sample, once. The number of ranks does not change the order of samples.
        #[test]
        fn ranks_partition_every_batch(samples in 8_u64..400, ranks in 1_u32..9, per_rank in 1_u64..5, epoch in 0_u64..3, seed: u64) {
            let batch = u64::from(ranks) * per_rank;
            prop_assume!(samples >= batch);
            let many = Sampler::new(samples, batch, ranks, seed, true, LastBatch::Drop).unwrap();
            let one = Sampler::new(samples, batch, 1, seed, true, LastBatch::Drop).unwrap();
            let mut cursor = Cursor::new(many.clone());
            let mut seen = BTreeSet::new();
            for step in epoch * many.steps_per_epoch()..(epoch + 1) * many.steps_per_epoch() {
                let cut: Vec<u64> = (0..ranks).flat_map(|rank| many.positions(step, rank)).collect();
                prop_assert_eq!(&cut, &one.positions(step, 0));
                prop_assert_eq!(&cut, &cursor.positions(step, 0..ranks));
                prop_assert!(cut.into_iter().all(|position| position < samples && seen.insert(position)));
            }
        }
    }
}
