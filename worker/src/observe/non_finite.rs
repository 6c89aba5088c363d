//! Finds the first tensor with a NaN or an infinity. The failed step is re-run rank by rank, and a process shares its finding with all
//! others.

use std::fmt;

use lockstep_common::series::Histogram;
use lockstep_data::Batch;
use lockstep_models::Model;
use lockstep_tch_ext::Error;
use lockstep_tch_ext::histogram::{Given, Look, histogram_of, watch_forward};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::Reporter;
use super::inspect::named;
use crate::reduce::{Exchange, ExchangeError};

/// The first tensor that is not finite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NonFinite {
    /// The rank whose pass computed it; `None` for parameters, buffers and state, which are the same in all ranks.
    rank: Option<u32>,
    /// Number of elements that are not finite, and of all elements.
    bad: u64,
    count: u64,
    /// `inputs`, `loss`, or `weight/..`, `buffer/..`, `activation/..`, `grad/..` as distributions are named.
    tensor: String,
    /// The model's name of the layer that computed it.
    layer: Option<String>,
}

/// Bytes of the message in which processes share a finding: JSON, padded with blanks.
const BYTES: usize = 1024;

impl NonFinite {
    fn if_bad(rank: Option<u32>, tensor: impl Into<String>, histogram: &Histogram) -> Option<Self> {
        let bad = histogram.nans + histogram.infs;
        (bad > 0).then(|| Self { rank, bad, count: histogram.count, tensor: tensor.into(), layer: None })
    }

    fn of(rank: Option<u32>, name: impl Into<String>, tensor: &Tensor) -> Result<Option<Self>, Error> {
        if !tensor.defined() || !tensor.is_floating_point() {
            return Ok(None);
        }
        Ok(Self::if_bad(rank, name, &histogram_of(tensor)?))
    }

    /// Searches the parameters and buffers, which are the same in all processes.
    pub(crate) fn held(model: &dyn Model) -> Result<Option<Self>, Error> {
        let weights = model.parameters().iter().map(|own| (format!("weight/{}", own.name), &own.tensor));
        let buffers = model.buffers().iter().map(|(name, tensor)| (format!("buffer/{name}"), tensor));
        first(weights.chain(buffers).map(|(name, tensor)| Self::of(None, name, tensor)))
    }

    /// Checks a tensor of the state after a step, which is the same in all processes.
    pub(crate) fn in_state(name: &str, tensor: &Tensor) -> Result<Option<Self>, Error> {
        Self::of(None, name, tensor)
    }

    /// Checks the inputs that `rank` reads.
    pub(crate) fn inputs(rank: u32, batch: &Batch) -> Result<Option<Self>, Error> {
        Self::of(Some(rank), "inputs", &batch.inputs)
    }

    /// Searches the forward pass of `rank`. If a layer fails, the distributions of the activations up to that layer are reported.
    pub(crate) fn forward<T>(
        reporter: &mut Reporter,
        step: u64,
        rank: u32,
        model: &dyn Model,
        forward: impl FnOnce() -> T,
    ) -> Result<(T, Option<Self>), Error> {
        let (given, seen) = watch_forward(Look::Trace, forward)?;
        let seen: Vec<(String, Given)> = named(seen).collect();
        let bad = |(at, (name, given)): (usize, &(String, Given))| {
            let found = Self::if_bad(Some(rank), name, &given.histogram)?;
            Some((at, Self { layer: layer_of(model, given.parameter), ..found }))
        };
        let Some((at, found)) = seen.iter().enumerate().find_map(bad) else { return Ok((given, None)) };
        for (name, given) in seen[..=at].iter().filter(|(_, given)| given.layer) {
            reporter.histogram(name.clone(), step, &given.histogram);
        }
        Ok((given, Some(found)))
    }

    /// Checks the loss of `rank`: a sum may overflow although its terms are finite.
    pub(crate) fn loss(rank: u32, loss: &Tensor) -> Result<Option<Self>, Error> {
        Self::of(Some(rank), "loss", loss)
    }

    /// Searches the gradients of a backward pass of `rank`; `names` are the parameters in the order of the forward pass.
    pub(crate) fn backward(rank: u32, names: &[&str], gradients: &[Tensor]) -> Result<Option<Self>, Error> {
        // The backward pass goes from the last parameter to the first, so the search does, too.
        let each = names.iter().zip(gradients).rev();
        first(each.map(|(name, gradient)| Self::of(Some(rank), format!("grad/{name}"), gradient)))
    }

    /// The finding of the process with the lowest index that has one; the same in all processes. All processes call it together.
    pub(crate) fn shared(
        own: Option<&Self>,
        device: Device,
        exchange: &mut dyn Exchange,
    ) -> Result<Option<Self>, ExchangeError> {
        let mine = Tensor::f_from_slice(&encode(own))?.f_to(device)?;
        for tensor in &exchange.gather(mine)? {
            if let Some(found) = decode(&Vec::<u8>::try_from(tensor)?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reports the number of bad elements as the series `not_finite/<tensor>`, for the rank. Every process reports it, because the run
    /// ends with the first report that arrives.
    pub(crate) fn report(&self, reporter: &mut Reporter, step: u64) {
        reporter.number(&format!("not_finite/{}", self.tensor), self.rank, step, self.bad as f64);
    }
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, bad, count, tensor, layer } = self;
        match tensor.split_once('/') {
            None if tensor == "loss" => f.write_str("the loss itself")?,
            None => write!(f, "the batch's {tensor}")?,
            Some(("grad", name)) => write!(f, "the gradient of `{name}`")?,
            Some((kind @ ("weight" | "buffer"), name)) => write!(f, "the {kind} `{name}`")?,
            Some(_) => write!(f, "`{tensor}`")?,
        }
        if let Some(layer) = layer {
            write!(f, " of layer `{layer}`")?;
        }
        write!(f, " ({bad} of {count} elements)")?;
        rank.map_or(Ok(()), |rank| write!(f, " of rank {rank}"))
    }
}

/// The name of the layer whose parameter begins at `address`: the name of the parameter without its last part.
fn layer_of(model: &dyn Model, address: usize) -> Option<String> {
    let of_it = model.parameters().iter().find(|own| address != 0 && own.tensor.data_ptr().addr() == address)?;
    Some(of_it.name.rsplit_once('.').map_or(of_it.name.as_str(), |(layer, _)| layer).to_owned())
}

fn encode(own: Option<&NonFinite>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(&own).unwrap_or_default();
    bytes.resize(BYTES, b' ');
    bytes
}

/// `None` also for a finding whose JSON was longer than [`BYTES`].
fn decode(bytes: &[u8]) -> Option<NonFinite> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// The first finding, or the first error.
fn first(mut found: impl Iterator<Item = Result<Option<NonFinite>, Error>>) -> Result<Option<NonFinite>, Error> {
    found.find_map(Result::transpose).transpose()
}

#[cfg(test)]
mod tests {
    use lockstep_models::{Context, EvalSums, ModelError, Parameter};

    use super::*;

    /// A model that only has parameters and buffers.
    struct Holding(Vec<Parameter>, Vec<(String, Tensor)>);

    impl Model for Holding {
        fn parameters(&self) -> &[Parameter] {
            &self.0
        }

        fn buffers(&self) -> &[(String, Tensor)] {
            &self.1
        }

        fn loss(&self, _: &Batch, _: &Context) -> Result<Tensor, ModelError> {
            Ok(Tensor::new())
        }

        fn evaluate(&self, _: &Batch, _: &Context) -> Result<EvalSums, ModelError> {
            Ok(EvalSums { loss_sum: 0.0, right: None, count: 0, metrics: vec![] })
        }

        fn describe(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn it_is_told_whole_and_in_words() {
        for (rank, tensor, words) in [
            (Some(3), "inputs", "the batch's inputs (2 of 24 elements) of rank 3"),
            (Some(3), "loss", "the loss itself (2 of 24 elements) of rank 3"),
            (None, "weight/a.b", "the weight `a.b` (2 of 24 elements)"),
            (None, "buffer/a.b", "the buffer `a.b` (2 of 24 elements)"),
            (Some(0), "activation/002.mul", "`activation/002.mul` (2 of 24 elements) of rank 0"),
            (Some(3), "grad/a b", "the gradient of `a b` (2 of 24 elements) of rank 3"),
        ] {
            let found = NonFinite { rank, bad: 2, count: 24, tensor: tensor.to_owned(), layer: None };
            assert_eq!(decode(&encode(Some(&found))).as_ref(), Some(&found));
            assert_eq!(found.to_string(), words);
        }
        let layer = Some("head".to_owned());
        let given = NonFinite { rank: Some(0), bad: 2, count: 24, tensor: "activation/002.linear".to_owned(), layer };
        assert_eq!(decode(&encode(Some(&given))).as_ref(), Some(&given));
        assert_eq!(given.to_string(), "`activation/002.linear` of layer `head` (2 of 24 elements) of rank 0");
        assert_eq!(decode(&encode(None)), None, "who knows nothing says nothing");
        let long = NonFinite { rank: None, bad: 1, count: 1, tensor: "weight/".repeat(BYTES), layer: None };
        assert_eq!((encode(Some(&long)).len(), decode(&encode(Some(&long)))), (BYTES, None));
    }

    #[test]
    fn a_pass_is_searched_from_its_beginning_to_its_end() {
        let tensor = |values: &[f32]| Tensor::from_slice(values);
        let found = |found: Option<NonFinite>| found.map(|found| (found.tensor, found.rank, found.bad, found.count));
        let (good, worse) = (tensor(&[1.0]), tensor(&[f32::INFINITY, f32::NAN, 0.0]));
        let held = |parameters: [&Tensor; 2], buffer: &Tensor| {
            let parameters = ["a", "b"].iter().zip(parameters);
            let parameters = parameters.map(|(name, own)| Parameter::new((*name).to_owned(), own.shallow_clone()));
            let buffers =
                vec![("count".to_owned(), Tensor::from_slice(&[1_i64])), ("c".to_owned(), buffer.shallow_clone())];
            found(NonFinite::held(&Holding(parameters.collect(), buffers)).unwrap())
        };
        assert_eq!(held([&good, &good], &good), None);
        assert_eq!(held([&good, &worse], &worse), Some(("weight/b".to_owned(), None, 2, 3)));
        assert_eq!(held([&good, &good], &worse), Some(("buffer/c".to_owned(), None, 2, 3)));
        let inputs = |inputs: &Tensor| {
            let batch = Batch::new(inputs.shallow_clone(), Tensor::from_slice(&[1_i64]));
            found(NonFinite::inputs(1, &batch).unwrap())
        };
        assert_eq!((inputs(&good), inputs(&Tensor::from_slice(&[1_i64]))), (None, None));
        assert_eq!(inputs(&worse), Some(("inputs".to_owned(), Some(1), 2, 3)));
        assert_eq!(
            found(NonFinite::loss(1, &tensor(&[f32::INFINITY])).unwrap()),
            Some(("loss".to_owned(), Some(1), 1, 1))
        );
        let backward = |gradients: &[&Tensor]| {
            let gradients: Vec<Tensor> = gradients.iter().map(|gradient| gradient.shallow_clone()).collect();
            found(NonFinite::backward(1, &["a", "b", "c"], &gradients).unwrap())
        };
        assert_eq!(backward(&[&good, &good, &good]), None);
        assert_eq!(backward(&[&worse, &worse, &Tensor::new()]), Some(("grad/b".to_owned(), Some(1), 2, 3)));
    }
}
