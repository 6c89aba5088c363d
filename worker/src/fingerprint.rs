//! Fingerprints of a whole state, as the record keeps them and as processes compare them.

use std::collections::HashSet;

use lockstep_common::record::Fingerprints;
use lockstep_tch_ext::bits::bit_sums;
use tch::{Device, Kind, TchError, Tensor};

use crate::exchange::{Exchange, ExchangeError};
use crate::state::State;

/// Another process has other tensors than this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// That process.
    pub process: usize,
    /// The tensors that differ, in the order of a forward pass.
    pub tensors: Vec<String>,
}

/// Takes fingerprints of one state.
#[derive(Debug)]
pub struct Fingerprinter {
    names: Vec<String>,
    tensors: Vec<Tensor>,
    device: Device,
}

impl Fingerprinter {
    /// Of `state`'s tensors and of `gradients`, one for each parameter: parameter by parameter in the model's order its
    /// value, gradient and optimizer state; then what belongs to no parameter, as buffers.
    pub fn new(state: &State, gradients: &[Tensor], device: Device) -> Self {
        let (mut names, mut tensors) = (Vec::new(), Vec::new());
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
        Self { names, tensors, device }
    }

    /// The fingerprints of the state as it is.
    pub fn take(&self) -> Result<Fingerprints, lockstep_tch_ext::Error> {
        Ok(Fingerprints { names: self.names.clone(), sums: bit_sums(&self.tensors)? })
    }

    /// Whether every other process has the same; the first that has not, and where. All processes call it together.
    pub fn compare(
        &self,
        own: &Fingerprints,
        exchange: &mut dyn Exchange,
    ) -> Result<Option<Divergence>, ExchangeError> {
        let digests = self.swap(&[own.digest()], exchange)?;
        if digests.iter().all(|digest| *digest == digests[0]) {
            return Ok(None);
        }
        // Everybody has seen a difference: so everybody asks where.
        let all = self.swap(&own.sums, exchange)?;
        for (process, sums) in all.into_iter().enumerate() {
            let other = Fingerprints { names: own.names.clone(), sums };
            let tensors: Vec<_> = own.differences(&other).into_iter().map(str::to_owned).collect();
            if !tensors.is_empty() {
                return Ok(Some(Divergence { process, tensors }));
            }
        }
        Ok(None)
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
