//! Which samples a rank reads at a step. All that resumes of it is the step number.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::permutation::Permutation;
use crate::seed::{Stream, derive};

/// What happens to the samples that do not fill a batch at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// They are left out of this epoch; the next one has another order.
    #[default]
    Drop,
    /// The batch is filled up from the beginning of the same epoch's order.
    Pad,
}

/// A sampler that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// The ranks' shares of a batch would differ.
    #[error("`batch.size` = {batch} is not divisible by `ranks` = {ranks}")]
    BatchNotDivisible {
        /// Global batch size.
        batch: u64,
        /// Number of ranks.
        ranks: u32,
    },
    /// Not one batch in an epoch.
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

/// The order of samples of a whole run: epochs, batches, ranks.
///
/// Global position stream cut into batches, batches into ranks. A function of `(seed, epoch, step, rank)` alone.
/// Frozen: `golden/sampler.txt`.
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
    /// A sampler over `samples` training samples, `batch` of them a step over all `ranks`; `seed` is the run's root seed.
    ///
    /// # Errors
    /// `BatchNotDivisible`; `TooFewSamples` if an epoch would have no step.
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

    /// Logical ranks.
    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Optimizer steps in one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// The epoch that the step after `step` completed ones belongs to.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch
    }

    /// Samples of one rank in one step.
    pub fn micro_batch(&self) -> u64 {
        self.batch / u64::from(self.ranks)
    }

    /// Global sample positions that `rank` reads when `step` steps are completed; the union over ranks is the batch, in
    /// order.
    pub fn positions(&self, step: u64, rank: u32) -> Vec<u64> {
        self.in_order(step, rank..rank + 1, self.order(self.epoch(step)).as_ref())
    }

    /// The order of an epoch, unless it is the data's own.
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

/// Reads a sampler's positions step after step: the order of an epoch, which costs more than a position, is made once.
#[derive(Clone, Debug)]
pub struct Cursor {
    sampler: Sampler,
    /// Of the epoch that was read last.
    order: Option<(u64, Option<Permutation>)>,
}

impl Cursor {
    /// A cursor over `sampler`'s positions.
    pub fn new(sampler: Sampler) -> Self {
        Self { sampler, order: None }
    }

    /// The sampler.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// What [`Sampler::positions`] gives for each of `ranks`, one after another.
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
        /// Each sample is read exactly once an epoch by exactly one rank; the number of ranks moves only the cuts.
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
