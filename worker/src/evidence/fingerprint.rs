//! Fingerprints of a whole state, for the record and for the comparison of processes.

use std::collections::HashSet;

use lockstep_common::record::{self, Fingerprints};
use lockstep_tch_ext::bits::bit_sums;
use tch::{Device, Tensor};

use crate::checkpoint::{STEPS, State};
use crate::reduce::{Exchange, ExchangeError};

/// How the states of the processes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The state's fingerprint in each process, by process index: [`Taken::digest`].
    pub fingerprints: Vec<u64>,
    /// Names of the differing tensors, in the order of a forward pass; empty if the other processes ended before the comparison.
    pub tensors: Vec<String>,
    /// The gradient histories of all ranks since the processes last agreed: step by step, one word for each rank; empty if they could not
    /// be collected.
    pub history: Vec<u64>,
}

/// The fingerprints of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The fingerprints of all tensors in one number.
    pub digest: u64,
    /// Of each rank's gradient, by rank; before the comparison 0 for the ranks of other processes.
    ranks: Vec<u64>,
    /// Of each tensor; 0 for [`STEPS`] if the state has none.
    sums: Vec<u64>,
    has_steps: bool,
}

/// Takes the fingerprints of a state and of the ranks' gradients.
#[derive(Debug)]
pub struct Fingerprinter {
    /// `rank/R` for each rank, then the names of the tensors, then [`STEPS`], which a state may not have.
    names: Vec<String>,
    tensors: Vec<Tensor>,
    /// Of the hosted ranks' gradients in the current step; 0 for other ranks.
    ranks: Vec<u64>,
    device: Device,
}

impl Fingerprinter {
    /// For `state` and the mean `gradients`, one for each parameter. The order is: for each parameter, in the model's order, its value,
    /// gradient and optimizer state; then the tensors that belong to no parameter, such as buffers.
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

    /// Takes the fingerprint of a rank's gradient. To be called before the gradient is added to others.
    pub fn take_rank(&mut self, rank: u32, gradient: &Tensor) -> Result<(), lockstep_tch_ext::Error> {
        self.ranks[rank as usize] = bit_sums(std::slice::from_ref(gradient))?[0];
        Ok(())
    }

    /// Takes the fingerprints of the current `state`, with those of the hosted ranks' gradients.
    pub fn take(&mut self, state: &State) -> Result<Taken, lockstep_tch_ext::Error> {
        let mut sums = bit_sums(&self.tensors)?;
        let steps = state.steps()?;
        let has_steps = steps.is_some();
        if let Some(steps) = steps {
            sums.extend(bit_sums(&[steps.tensor])?);
        }
        let digest = record::digest_of_sums(self.tensor_names(), &sums);
        // All processes must compare equally many sums, also if only some of them have `STEPS`.
        sums.resize(self.tensors.len() + 1, 0);
        let ranks = self.ranks.clone();
        self.ranks.fill(0);
        Ok(Taken { digest, ranks, sums, has_steps })
    }

    /// Compares the fingerprints with all other processes, and fills in the ranks that they host. `None` if the states are equal. All
    /// processes call it together.
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
        // All processes have seen the difference, so all of them exchange their sums. If one has ended, the tensors stay unknown.
        let all = self.swap(&taken.sums, exchange).unwrap_or_default();
        let names = self.tensor_names().iter().enumerate();
        let differ = names.filter(|(index, _)| all.iter().any(|sums| sums[*index] != taken.sums[*index]));
        let tensors = differ.map(|(_, name)| name.clone()).collect();
        Ok(Some(Divergence { fingerprints, tensors, history: Vec::new() }))
    }

    /// Joins `own` gradient history with those of all other processes. All processes call it together.
    pub fn whole_history(&self, mut own: Vec<u64>, exchange: &mut dyn Exchange) -> Result<Vec<u64>, ExchangeError> {
        for words in self.swap(&own, exchange)? {
            join(&mut own, &words);
        }
        Ok(own)
    }

    /// The fingerprints for the record: of the ranks' gradients, then of the state.
    pub fn whole(&self, mut taken: Taken) -> Fingerprints {
        taken.ranks.append(&mut taken.sums);
        let count = self.names.len() - usize::from(!taken.has_steps);
        taken.ranks.truncate(count);
        Fingerprints { names: self.names[..count].to_vec(), sums: taken.ranks }
    }

    fn tensor_names(&self) -> &[String] {
        &self.names[self.ranks.len()..]
    }

    /// Sends `own` to all processes; returns the words of each process, by process index.
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

/// Joins the words of ranks: one process hosts a rank, the others have 0 for it.
fn join(words: &mut [u64], others: &[u64]) {
    words.iter_mut().zip(others).for_each(|(word, other)| *word |= other);
}
