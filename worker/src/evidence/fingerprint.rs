//! Fingerprints of a whole state, as the record keeps them and as processes compare them.

use std::collections::HashSet;

use lockstep_common::record::{self, Fingerprints};
use lockstep_tch_ext::bits::bit_sums;
use tch::{Device, Tensor};

use crate::checkpoint::{STEPS, State};
use crate::reduce::{Exchange, ExchangeError};

/// The processes have different tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// What all tensors of each process come to, by process: [`Taken::digest`].
    pub fingerprints: Vec<u64>,
    /// The tensors that differ, in the order of a forward pass; empty if the others were gone before they could tell.
    pub tensors: Vec<String>,
    /// What all ranks computed since the processes last agreed: step by step, a word for each rank; empty if that could not
    /// be learned.
    pub history: Vec<u64>,
}

/// Fingerprints of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Those of the state in one number.
    pub digest: u64,
    /// By rank; 0 for those that other processes host, until they are compared.
    ranks: Vec<u64>,
    /// By tensor; 0 for [`STEPS`] if the state has none.
    sums: Vec<u64>,
    has_steps: bool,
}

/// Takes fingerprints of one state, and of the ranks' gradients that lead to it.
#[derive(Debug)]
pub struct Fingerprinter {
    /// `rank/R` for each rank, then the tensors, then [`STEPS`], which a state may lack.
    names: Vec<String>,
    tensors: Vec<Tensor>,
    /// Of the hosted ranks in the step under way; 0 for others.
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
        names.push(STEPS.to_owned());
        Self { names, tensors, ranks: vec![0; ranks as usize], device }
    }

    /// Takes the fingerprint of a rank's gradient, before it is added to others.
    pub fn take_rank(&mut self, rank: u32, gradient: &Tensor) -> Result<(), lockstep_tch_ext::Error> {
        self.ranks[rank as usize] = bit_sums(std::slice::from_ref(gradient))?[0];
        Ok(())
    }

    /// The fingerprints of the state as it is, which is of `state`, and of the hosted ranks' gradients.
    pub fn take(&mut self, state: &State) -> Result<Taken, lockstep_tch_ext::Error> {
        let mut sums = bit_sums(&self.tensors)?;
        let steps = state.steps()?;
        let has_steps = steps.is_some();
        if let Some(steps) = steps {
            sums.extend(bit_sums(&[steps.tensor])?);
        }
        let digest = record::digest_of_sums(self.tensor_names(), &sums);
        // All processes compare as many, whatever one of them holds.
        sums.resize(self.tensors.len() + 1, 0);
        let ranks = self.ranks.clone();
        self.ranks.fill(0);
        Ok(Taken { digest, ranks, sums, has_steps })
    }

    /// Compares with all other processes, and learns the gradients of the ranks that they host. How they differ, if they
    /// do. All processes call it together.
    pub fn compare(&self, taken: &mut Taken, exchange: &mut dyn Exchange) -> Result<Option<Divergence>, ExchangeError> {
        let words: Vec<u64> = std::iter::once(taken.digest).chain(taken.ranks.iter().copied()).collect();
        let all = self.swap(&words, exchange)?;
        for words in &all {
            join(&mut taken.ranks, &words[1..]);
        }
        let fingerprints: Vec<u64> = all.iter().map(|words| words[0]).collect();
        if fingerprints.iter().all(|digest| *digest == taken.digest) {
            return Ok(None);
        }
        // Everybody has seen a difference, so everybody asks where; one that is gone by now has said that they differ.
        let all = self.swap(&taken.sums, exchange).unwrap_or_default();
        let names = self.tensor_names().iter().enumerate();
        let differ = names.filter(|(index, _)| all.iter().any(|sums| sums[*index] != taken.sums[*index]));
        let tensors = differ.map(|(_, name)| name.clone()).collect();
        Ok(Some(Divergence { fingerprints, tensors, history: Vec::new() }))
    }

    /// The gradient histories of all processes in one, from `own`. All of them call it together.
    pub fn whole_history(&self, mut own: Vec<u64>, exchange: &mut dyn Exchange) -> Result<Vec<u64>, ExchangeError> {
        for words in self.swap(&own, exchange)? {
            join(&mut own, &words);
        }
        Ok(own)
    }

    /// What is recorded: of the ranks' gradients, then of the state.
    pub fn whole(&self, mut taken: Taken) -> Fingerprints {
        taken.ranks.append(&mut taken.sums);
        let count = self.names.len() - usize::from(!taken.has_steps);
        taken.ranks.truncate(count);
        Fingerprints { names: self.names[..count].to_vec(), sums: taken.ranks }
    }

    fn tensor_names(&self) -> &[String] {
        &self.names[self.ranks.len()..]
    }

    /// Gives `own` to all; everybody's, by process.
    fn swap(&self, own: &[u64], exchange: &mut dyn Exchange) -> Result<Vec<Vec<u64>>, ExchangeError> {
        let words: Vec<i64> = own.iter().map(|word| *word as i64).collect();
        let mine = Tensor::f_from_slice(&words)?.f_to(self.device)?;
        exchange
            .gather(mine)?
            .iter()
            .map(|tensor| Ok(Vec::<i64>::try_from(tensor)?.into_iter().map(|word| word as u64).collect()))
            .collect()
    }
}

/// Brings words of ranks together: one process hosts a rank, the others say 0.
fn join(words: &mut [u64], others: &[u64]) {
    words.iter_mut().zip(others).for_each(|(word, other)| *word |= other);
}
