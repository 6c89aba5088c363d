//! Fingerprints of a whole state, as the record keeps them and as processes compare them.

use std::collections::HashSet;

use lockstep_common::record::Fingerprints;
use lockstep_tch_ext::bits::bit_sums;
use tch::{Device, Kind, TchError, Tensor};

use crate::exchange::{Exchange, ExchangeError};
use crate::state::State;
use crate::trail::{Trail, TrailError};

/// The processes have different tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// What all tensors of each process come to, by process: [`Taken::digest`].
    pub fingerprints: Vec<u64>,
    /// The tensors that differ, in the order of a forward pass; empty if the others were gone before they could tell.
    pub tensors: Vec<String>,
    /// What all ranks computed since the processes last agreed: [`Trail::words`]; empty if that could not be learned.
    pub trail: Vec<u64>,
}

/// Fingerprints of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// All of them in one number.
    pub digest: u64,
    sums: Vec<u64>,
}

/// Takes fingerprints of one state, and of the ranks' gradients that lead to it.
#[derive(Debug)]
pub struct Fingerprinter {
    /// `rank/R` for each rank, then the tensors.
    names: Vec<String>,
    tensors: Vec<Tensor>,
    /// By rank; 0 for those that other processes host.
    ranks: Vec<u64>,
    device: Device,
}

impl Fingerprinter {
    /// Of `state`'s tensors and of `gradients`, one for each parameter: parameter by parameter in the model's order its
    /// value, gradient and optimizer state; then what belongs to no parameter, as buffers.
    pub fn new(state: &State, gradients: &[Tensor], ranks: u32, device: Device) -> Self {
        let mut names: Vec<String> = (0..ranks).map(|rank| format!("rank/{rank}")).collect();
        let mut tensors = Vec::new();
        let mut push = |name: String, tensor: &Tensor| {
            names.push(name);
            tensors.push(tensor.shallow_clone());
        };
        for (parameter, gradient) in state.model.parameters().iter().zip(gradients) {
            let name = &parameter.name;
            push(format!("model/{name}"), &parameter.tensor.detach());
            push(format!("grad/{name}"), gradient);
            for named in state.tensors() {
                let of = named.name.strip_prefix("optimizer/").and_then(|rest| rest.split_once('/'));
                if of.is_some_and(|(_, of)| of == name) {
                    push(named.name.clone(), &named.tensor);
                }
            }
        }
        let taken: HashSet<String> = names.iter().cloned().collect();
        for named in state.tensors().iter().filter(|named| !taken.contains(&named.name)) {
            names.push(named.name.clone());
            tensors.push(named.tensor.shallow_clone());
        }
        Self { names, tensors, ranks: vec![0; ranks as usize], device }
    }

    /// Takes the fingerprint of a rank's gradient, before it is added to others.
    pub fn take_rank(&mut self, rank: u32, gradient: &Tensor) -> Result<(), lockstep_tch_ext::Error> {
        self.ranks[rank as usize] = bit_sums(std::slice::from_ref(gradient))?[0];
        Ok(())
    }

    /// The fingerprints of the state as it is.
    pub fn take(&self) -> Result<Taken, lockstep_tch_ext::Error> {
        let sums = bit_sums(&self.tensors)?;
        let names = self.names[self.ranks.len()..].to_vec();
        let fingerprints = Fingerprints { names, sums };
        Ok(Taken { digest: fingerprints.digest(), sums: fingerprints.sums })
    }

    /// Compares with all other processes, and learns the gradients of the ranks that they host. How they differ, if they
    /// do. All processes call it together.
    pub fn compare(
        &mut self,
        taken: &Taken,
        trail: &Trail,
        exchange: &mut dyn Exchange,
    ) -> Result<Option<Divergence>, ExchangeError> {
        let words: Vec<u64> = std::iter::once(taken.digest).chain(self.ranks.iter().copied()).collect();
        let all = self.swap(&words, exchange)?;
        for (rank, sum) in self.ranks.iter_mut().enumerate() {
            // One process hosts it; the others say 0.
            *sum = all.iter().fold(0, |sum, words| sum | words[rank + 1]);
        }
        let fingerprints: Vec<u64> = all.iter().map(|words| words[0]).collect();
        if fingerprints.iter().all(|digest| *digest == taken.digest) {
            return Ok(None);
        }
        // Everybody has seen a difference, so everybody asks where; one that is gone by now has said that they differ.
        let all = self.swap(&taken.sums, exchange).unwrap_or_default();
        let trail = self.whole_trail(trail, exchange).unwrap_or_default();
        let names = self.names[self.ranks.len()..].iter().enumerate();
        let differ = names.filter(|(index, _)| all.iter().any(|sums| sums[*index] != taken.sums[*index]));
        Ok(Some(Divergence { fingerprints, tensors: differ.map(|(_, name)| name.clone()).collect(), trail }))
    }

    /// The trails of all processes in one. All of them call it together.
    pub fn whole_trail(&self, trail: &Trail, exchange: &mut dyn Exchange) -> Result<Vec<u64>, TrailError> {
        let mut words = trail.words()?;
        for other in self.swap(&words, exchange)? {
            // One process hosts a rank; the others say 0.
            words.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
        }
        Ok(words)
    }

    /// What is recorded: of the ranks' gradients, then of the state. The next step begins without any rank's.
    pub fn whole(&mut self, taken: &Taken) -> Fingerprints {
        let sums = [self.ranks.as_slice(), &taken.sums].concat();
        self.ranks.fill(0);
        Fingerprints { names: self.names.clone(), sums }
    }

    /// Gives `own` to all; everybody's, by process.
    fn swap(&self, own: &[u64], exchange: &mut dyn Exchange) -> Result<Vec<Vec<u64>>, ExchangeError> {
        let words: Vec<i64> = own.iter().map(|word| *word as i64).collect();
        let mine = Tensor::f_from_slice(&words)?.f_to(self.device)?;
        let outgoing: Vec<Tensor> = (0..exchange.processes()).map(|_| mine.shallow_clone()).collect();
        let empty = || Tensor::f_zeros([own.len() as i64], (Kind::Int64, self.device));
        let mut incoming = (0..exchange.processes()).map(|_| empty()).collect::<Result<Vec<_>, TchError>>()?;
        exchange.exchange(&outgoing, &mut incoming)?;
        incoming[exchange.process()] = mine;
        incoming
            .iter()
            .map(|tensor| Ok(Vec::<i64>::try_from(tensor)?.into_iter().map(|word| word as u64).collect()))
            .collect()
    }
}
