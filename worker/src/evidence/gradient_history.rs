//! The gradient history: samples of each hosted rank's gradients in the steps since all processes last agreed. With it the coordinator
//! finds the process that was wrong first. Hot: one small copy on the device for each rank and step.

use std::ops::Range;

use lockstep_tch_ext::bits::bit_sums;
use lockstep_tch_ext::memory::copy_few;
use tch::{Device, Kind, TchError, Tensor};

/// Upper limit for the words of a history (steps times ranks): until the verdict it is part of the coordinator's replicated state.
const WORDS: u64 = 1 << 14;

/// Upper limit for the steps of a history.
const STEPS: u64 = 1000;

/// The gradient history of one process.
#[derive(Debug)]
pub(crate) struct GradientHistory {
    /// By step and hosted rank: a sample of the gradient, and the loss. Views of one tensor.
    samples: Vec<Tensor>,
    hosted: Range<u32>,
    ranks: u32,
    /// Steps noted.
    steps: usize,
}

impl GradientHistory {
    /// For the `hosted` ranks out of `ranks`, with samples of `sample` elements. It has room for `steps` steps, up to the limits above;
    /// later steps are not noted.
    pub(crate) fn new(
        hosted: Range<u32>,
        ranks: u32,
        steps: u64,
        sample: i64,
        (kind, device): (Kind, Device),
    ) -> Result<Self, TchError> {
        let places = steps.min(WORDS / u64::from(ranks)).min(STEPS) as i64 * hosted.len() as i64;
        let all = Tensor::f_zeros([places, sample], (kind, device))?;
        let samples = (0..places).map(|place| all.f_get(place)).collect::<Result<_, _>>()?;
        Ok(Self { samples, hosted, ranks, steps: 0 })
    }

    /// Keeps the sample of the `index`-th hosted rank in the current step.
    pub(crate) fn note(&mut self, index: usize, sample: &Tensor) -> Result<(), lockstep_tch_ext::Error> {
        match self.samples.get_mut(self.steps * self.hosted.len() + index) {
            Some(place) => copy_few(sample, place),
            None => Ok(()),
        }
    }

    /// To be called at the end of each step.
    pub(crate) fn end_step(&mut self) {
        self.steps = (self.steps + 1).min(self.samples.len() / self.hosted.len());
    }

    /// Deletes the history. To be called when all processes agree.
    pub(crate) fn clear(&mut self) {
        self.steps = 0;
    }

    /// Step by step, a fingerprint of the sample of each rank; 0 for ranks that other processes host.
    pub(crate) fn words(&self) -> Result<Vec<u64>, lockstep_tch_ext::Error> {
        let hosted = self.hosted.len();
        let own = bit_sums(&self.samples[..self.steps * hosted])?;
        let mut words = vec![0; self.steps * self.ranks as usize];
        for (of_step, own) in words.chunks_exact_mut(self.ranks as usize).zip(own.chunks_exact(hosted)) {
            of_step[self.hosted.start as usize..self.hosted.end as usize].copy_from_slice(own);
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_by_step_and_rank_and_show_every_change() {
        let mut history = GradientHistory::new(1..3, 4, 2, 3, (Kind::Float, Device::Cpu)).unwrap();
        let sample = |value: f32| Tensor::from_slice(&[value, 2.0, 3.0]);
        for values in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]] {
            for (index, value) in values.into_iter().enumerate() {
                history.note(index, &sample(value)).unwrap();
            }
            history.end_step();
        }
        let words = history.words().unwrap();
        assert_eq!(words.len(), 8, "two steps have room");
        assert!([0, 3, 4, 7].iter().all(|&other| words[other] == 0) && words[1] != words[2], "{words:?}");
        history.clear();
        history.note(0, &sample(1.0)).unwrap();
        history.note(1, &sample(9.0)).unwrap();
        history.end_step();
        let again = history.words().unwrap();
        assert_eq!((again.len(), again[1] == words[1], again[2] == words[2]), (4, true, false));
    }
}
