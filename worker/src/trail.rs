//! The trail: what each hosted rank computed in the steps since all processes last agreed, for finding out afterwards who
//! was the first to be wrong. Hot: one small copy on the device for a rank's step.

use std::ops::Range;

use lockstep_tch_ext::bits::bit_sums;
use tch::{Device, Kind, TchError, Tensor};

use crate::exchange::ExchangeError;
use crate::reduction::SAMPLE;

/// Words (steps times ranks) that a trail has at most: it travels in one message.
const WORDS: u64 = 1 << 16;

/// Trails of several processes cannot be brought together.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] lockstep_tch_ext::Error),
    /// The exchange did.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

/// The trail of one process.
#[derive(Debug)]
pub struct Trail {
    /// By step, hosted rank and element: samples of gradients, each with its loss.
    samples: Tensor,
    hosted: Range<u32>,
    ranks: u32,
    /// Steps noted.
    steps: i64,
    /// Steps that there is room for; later ones are not noted.
    room: i64,
}

impl Trail {
    /// For the `hosted` ones of `ranks`, with room for `steps`, if that is not too much.
    pub fn new(hosted: Range<u32>, ranks: u32, steps: u64, kind: Kind, device: Device) -> Result<Self, TchError> {
        let room = steps.min(WORDS / u64::from(ranks)) as i64;
        let samples = Tensor::f_zeros([room, hosted.len() as i64, SAMPLE], (kind, device))?;
        Ok(Self { samples, hosted, ranks, steps: 0, room })
    }

    /// Keeps what the `index`-th hosted rank computed in the step under way.
    pub fn note(&mut self, index: usize, sample: &Tensor) -> Result<(), TchError> {
        if self.steps < self.room {
            let place = self.samples.f_get(self.steps)?.f_get(index as i64)?;
            place.f_narrow(0, 0, sample.numel() as i64)?.f_copy_(sample)?;
        }
        Ok(())
    }

    /// The step is complete.
    pub fn end_step(&mut self) {
        self.steps = (self.steps + 1).min(self.room);
    }

    /// All processes agree: what was before does not matter any more.
    pub fn clear(&mut self) {
        self.steps = 0;
    }

    /// A word for each rank, step by step; 0 for ranks that other processes host.
    pub fn words(&self) -> Result<Vec<u64>, lockstep_tch_ext::Error> {
        let mut words = vec![0; (self.steps * i64::from(self.ranks)) as usize];
        for step in 0..self.steps {
            let samples = self.samples.get(step);
            let of_ranks: Vec<Tensor> = (0..self.hosted.len() as i64).map(|index| samples.get(index)).collect();
            let at = (step * i64::from(self.ranks)) as usize + self.hosted.start as usize;
            words[at..at + self.hosted.len()].copy_from_slice(&bit_sums(&of_ranks)?);
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_by_step_and_rank_and_show_every_change() {
        let mut trail = Trail::new(1..3, 4, 2, Kind::Float, Device::Cpu).unwrap();
        let sample = |value: f32| Tensor::from_slice(&[value, 2.0, 3.0]);
        for values in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]] {
            for (index, value) in values.into_iter().enumerate() {
                trail.note(index, &sample(value)).unwrap();
            }
            trail.end_step();
        }
        let words = trail.words().unwrap();
        assert_eq!(words.len(), 8, "two steps have room");
        assert!([0, 3, 4, 7].iter().all(|&other| words[other] == 0) && words[1] != words[2], "{words:?}");
        trail.clear();
        trail.note(0, &sample(1.0)).unwrap();
        trail.note(1, &sample(9.0)).unwrap();
        trail.end_step();
        let again = trail.words().unwrap();
        assert_eq!((again.len(), again[1] == words[1], again[2] == words[2]), (4, true, false));
    }
}
