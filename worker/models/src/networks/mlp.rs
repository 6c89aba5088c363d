//! Linear layers with an activation and dropout between them.

use lockstep_common::job::Activation;
use tch::Tensor;

use super::layers::{Linear, dropout};
use crate::ModelError;
use crate::parts::Builder;
use crate::supervised::Network;

/// A multi-layer perceptron over flattened inputs.
pub(crate) struct Mlp {
    layers: Vec<Linear>,
    activation: Activation,
    dropout: f64,
}

impl Mlp {
    pub(crate) fn new(
        builder: &mut Builder,
        widths: &[i64],
        activation: Activation,
        dropout: f64,
    ) -> Result<Self, ModelError> {
        let pairs = widths.windows(2).enumerate();
        let layers = pairs
            .map(|(index, pair)| Linear::new(builder, &format!("layers.{index}"), pair[0], pair[1]))
            .collect::<Result<_, _>>()?;
        Ok(Self { layers, activation, dropout })
    }

    fn between(&self, mut x: Tensor, training: bool) -> Result<Tensor, ModelError> {
        let active = match self.activation {
            // In place, because the gradient of a linear layer does not need its output.
            Activation::Relu => x.f_relu_()?,
            Activation::Gelu => x.f_gelu("none")?,
            Activation::Tanh => x.f_tanh()?,
        };
        dropout(active, self.dropout, training)
    }
}

impl Network for Mlp {
    fn forward(&self, inputs: &Tensor, training: bool) -> Result<Tensor, ModelError> {
        let (first, rest) = self.layers.split_first().expect("an mlp has an output layer");
        let mut x =
            if inputs.dim() == 2 { first.forward(inputs)? } else { first.forward(&inputs.f_flatten(1, -1)?)? };
        for layer in rest {
            x = layer.forward(&self.between(x, training)?)?;
        }
        Ok(x)
    }
}
