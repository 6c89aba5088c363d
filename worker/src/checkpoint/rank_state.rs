//! The state of each rank before its next step. All of it can be derived from the job and the step; checkpoints store it all the same, so
//! that a resume can verify it.

use std::collections::BTreeMap;
use std::ops::Range;

use lockstep_common::manifest::RankState;
use lockstep_common::numerics::python_hash_seed;
use lockstep_common::sampler::Sampler;
use lockstep_common::seed::{Stream, derive};
use lockstep_tch_ext::{Error, generator};
use tch::Device;

use crate::observe::device_name;

/// The state of one rank at a checkpoint, before its generators' states are stored as blobs.
#[derive(Clone, Debug, PartialEq)]
pub struct RankDraft {
    /// All but the generators.
    pub state: RankState,
    /// The generators' raw states at the beginning of the next step, by device (`cpu`, `cuda:0`).
    pub generators: BTreeMap<String, Vec<u8>>,
}

/// Derives the states of ranks at any step.
#[derive(Clone, Debug)]
pub struct Ranks {
    seed: u64,
    sampler: Sampler,
    device: Device,
}

impl Ranks {
    /// For a run with root seed `seed`, whose model is on `device`.
    pub fn new(seed: u64, sampler: Sampler, device: Device) -> Self {
        Self { seed, sampler, device }
    }

    /// Seeds torch's generators (of the CPU, and of the device) for `rank` in the step that completes `step + 1`.
    pub fn seed_generators(&self, step: u64, rank: u32) -> Result<(), Error> {
        let seed = derive(self.seed, Stream::Forward, step, rank);
        generator::seed(Device::Cpu, seed)?;
        if self.device != Device::Cpu {
            generator::seed(self.device, seed)?;
        }
        Ok(())
    }

    /// The states of `ranks` after `step` completed steps. Changes the states of torch's generators.
    pub fn at(&self, step: u64, ranks: Range<u32>) -> Result<Vec<RankDraft>, Error> {
        ranks.map(|rank| self.rank_at(step, rank)).collect()
    }

    fn rank_at(&self, step: u64, rank: u32) -> Result<RankDraft, Error> {
        self.seed_generators(step, rank)?;
        let mut generators = BTreeMap::from([(device_name(Device::Cpu), generator::get_state(Device::Cpu)?)]);
        if self.device != Device::Cpu {
            generators.insert(device_name(self.device), generator::get_state(self.device)?);
        }
        let epoch = self.sampler.epoch(step);
        let seeds = BTreeMap::from([
            ("init".to_owned(), derive(self.seed, Stream::Init, 0, 0)),
            ("order".to_owned(), derive(self.seed, Stream::Order, epoch, 0)),
            ("forward".to_owned(), derive(self.seed, Stream::Forward, step, rank)),
            ("user".to_owned(), derive(self.seed, Stream::User, step, rank)),
            ("python".to_owned(), python_hash_seed(self.seed)),
        ]);
        let state = RankState {
            rank,
            seeds,
            epoch,
            consumed: step * self.sampler.micro_batch(),
            next_position: self.sampler.positions(step, rank)[0],
            generators: BTreeMap::new(),
        };
        Ok(RankDraft { state, generators })
    }
}
