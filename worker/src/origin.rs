//! Where a number that is none began: the step is made again rank by rank, and what one process finds is told to all.

use std::fmt;

use lockstep_common::series::Histogram;
use lockstep_models::Batch;
use lockstep_tch_ext::Error;
use lockstep_tch_ext::histogram::{Given, Look, histogram_of, watch_forward};
use tch::{Device, Tensor};

use crate::exchange::{Exchange, ExchangeError};
use crate::inspect::named;
use crate::report::Reporter;

/// The first tensor of a rank's pass that is not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    rank: u32,
    /// Elements that are not finite, and all.
    bad: u64,
    count: u64,
    /// `inputs`, or `weight/..`, `activation/..`, `grad/..` as distributions are named.
    tensor: String,
}

/// Bytes in which processes tell each other of one.
const BYTES: usize = 1024;

impl Origin {
    /// If `histogram` is of something not finite.
    fn if_bad(rank: u32, tensor: impl Into<String>, histogram: &Histogram) -> Option<Self> {
        let bad = histogram.nans + histogram.infs;
        (bad > 0).then(|| Self { rank, bad, count: histogram.count, tensor: tensor.into() })
    }

    /// Among what `rank`'s pass begins with.
    pub(crate) fn before(rank: u32, batch: &Batch, weights: &[(&str, &Tensor)]) -> Result<Option<Self>, Error> {
        if batch.inputs.is_floating_point()
            && let Some(found) = Self::if_bad(rank, "inputs", &histogram_of(&batch.inputs)?)
        {
            return Ok(Some(found));
        }
        for (name, tensor) in weights {
            if let Some(found) = Self::if_bad(rank, format!("weight/{name}"), &histogram_of(tensor)?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// In the forward pass of `rank`; what its layers gave is reported then, up to the one that failed.
    pub(crate) fn forward<T>(
        reporter: &mut Reporter,
        step: u64,
        rank: u32,
        forward: impl FnOnce() -> T,
    ) -> Result<(T, Option<Self>), Error> {
        let (given, seen) = watch_forward(Look::Trace, forward)?;
        let seen: Vec<(String, Given)> = named(seen).collect();
        let at = seen.iter().position(|(_, given)| given.histogram.nans + given.histogram.infs > 0);
        let layers = at.map_or(&seen[..0], |at| &seen[..=at]);
        for (name, given) in layers.iter().filter(|(_, given)| given.layer) {
            reporter.histogram(name.clone(), step, &given.histogram);
        }
        Ok((given, layers.last().and_then(|(name, given)| Self::if_bad(rank, name, &given.histogram))))
    }

    /// Among the gradients that a backward pass of `rank` gave, with the parameters' names in the order of the forward pass.
    pub(crate) fn backward(rank: u32, names: &[&str], gradients: &[Tensor]) -> Result<Option<Self>, Error> {
        // It goes from the last to the first: where it begins to fail is the last in order.
        for (name, gradient) in names.iter().zip(gradients).rev() {
            if !gradient.defined() {
                continue;
            }
            if let Some(found) = Self::if_bad(rank, format!("grad/{name}"), &histogram_of(gradient)?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What the first process, by number, says that knows one; the same in all.
    pub(crate) fn shared(
        own: Option<&Self>,
        device: Device,
        exchange: &mut dyn Exchange,
    ) -> Result<Option<Self>, ExchangeError> {
        let mut bytes = own.map(Self::encode).unwrap_or_default();
        bytes.resize(BYTES, 0);
        for tensor in &exchange.gather(Tensor::f_from_slice(&bytes)?.f_to(device)?)? {
            if let Some(found) = Self::decode(&Vec::<u8>::try_from(tensor)?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn encode(&self) -> Vec<u8> {
        let Self { rank, bad, count, tensor } = self;
        format!("{rank} {bad} {count} {tensor}").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let words = String::from_utf8_lossy(&bytes[..end]);
        let mut words = words.splitn(4, ' ');
        Some(Self {
            rank: words.next()?.parse().ok()?,
            bad: words.next()?.parse().ok()?,
            count: words.next()?.parse().ok()?,
            tensor: words.next()?.to_owned(),
        })
    }

    /// As a series: so many elements of `not_finite/<tensor>` in this rank. Every process says it, as the run ends with the
    /// first that is heard.
    pub(crate) fn report(&self, reporter: &mut Reporter, step: u64) {
        reporter.number(&format!("not_finite/{}", self.tensor), Some(self.rank), step, self.bad as f64);
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, bad, count, tensor } = self;
        match tensor.split_once('/') {
            None => write!(f, "the batch's {tensor}")?,
            Some(("grad", name)) => write!(f, "the gradient of `{name}`")?,
            Some(("weight", name)) => write!(f, "the weight `{name}`")?,
            Some(_) => write!(f, "`{tensor}`")?,
        }
        write!(f, " ({bad} of {count} elements) of rank {rank}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_whole_and_in_words() {
        for (tensor, words) in [
            ("inputs", "the batch's inputs (2 of 24 elements) of rank 3"),
            ("weight/a.b", "the weight `a.b` (2 of 24 elements) of rank 3"),
            ("activation/002.mul", "`activation/002.mul` (2 of 24 elements) of rank 3"),
            ("grad/a b", "the gradient of `a b` (2 of 24 elements) of rank 3"),
        ] {
            let origin = Origin { rank: 3, bad: 2, count: 24, tensor: tensor.to_owned() };
            let mut bytes = origin.encode();
            bytes.resize(BYTES, 0);
            assert_eq!(Origin::decode(&bytes).as_ref(), Some(&origin));
            assert_eq!(origin.to_string(), words);
        }
        assert_eq!(Origin::decode(&[0; BYTES]), None, "who knows nothing says nothing");
    }

    #[test]
    fn a_pass_is_searched_from_its_beginning_to_its_end() {
        let bad = |values: &[f32]| Tensor::from_slice(values);
        let found = |origin: Option<Origin>| origin.map(|origin| (origin.tensor, origin.bad, origin.count));
        let batch = |values| Batch::new(bad(values), Tensor::from_slice(&[1_i64]));
        let (good, worse) = (bad(&[1.0]), bad(&[f32::INFINITY, f32::NAN, 0.0]));
        let before = |inputs, weights: &[(&str, &Tensor)]| found(Origin::before(0, &batch(inputs), weights).unwrap());
        assert_eq!(before(&[1.0], &[("a", &good), ("b", &good)]), None);
        assert_eq!(before(&[1.0], &[("a", &good), ("b", &worse)]), Some(("weight/b".to_owned(), 2, 3)));
        assert_eq!(before(&[f32::NAN], &[("b", &worse)]), Some(("inputs".to_owned(), 1, 1)));
        let backward = |gradients: &[&Tensor]| {
            let gradients: Vec<Tensor> = gradients.iter().map(|gradient| gradient.shallow_clone()).collect();
            found(Origin::backward(0, &["a", "b", "c"], &gradients).unwrap())
        };
        assert_eq!(backward(&[&good, &good, &good]), None);
        assert_eq!(backward(&[&worse, &worse, &Tensor::new()]), Some(("grad/b".to_owned(), 2, 3)));
    }
}
