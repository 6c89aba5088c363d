//! The layers of the built-in models, initialised as `torch.nn` initialises them.
//!
//! Hot: a forward pass is one call into libtorch.

use tch::{Kind, Tensor};

use crate::ModelError;
use crate::parts::{Builder, Init};

/// `x · weightᵀ + bias`.
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Kaiming-uniform initialisation, as in `torch.nn.Linear`: the same seed gives the same bits.
    pub(crate) fn new(builder: &mut Builder, path: &str, inputs: i64, outputs: i64) -> Result<Self, ModelError> {
        Self::with(builder, path, [inputs, outputs], [kaiming(inputs), Init::Uniform(1.0 / (inputs as f64).sqrt())])
    }

    /// The weight is drawn from a normal distribution; the bias is 0.
    pub(crate) fn normal(
        builder: &mut Builder,
        path: &str,
        inputs: i64,
        outputs: i64,
        deviation: f64,
    ) -> Result<Self, ModelError> {
        Self::with(builder, path, [inputs, outputs], [Init::Normal(deviation), Init::Constant(0.0)])
    }

    fn with(
        builder: &mut Builder,
        path: &str,
        [inputs, outputs]: [i64; 2],
        [weight, bias]: [Init; 2],
    ) -> Result<Self, ModelError> {
        builder.module(path, format!("linear {inputs} → {outputs}"));
        Ok(Self {
            weight: builder.parameter(format!("{path}.weight"), &[outputs, inputs], weight)?,
            bias: builder.parameter(format!("{path}.bias"), &[outputs], bias)?,
        })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}

/// The bound of `torch.nn.init.kaiming_uniform_(a=sqrt(5))`, in the same floating-point operations.
fn kaiming(fan_in: i64) -> Init {
    let slope = 5.0_f64.sqrt();
    let gain = (2.0 / (1.0 + slope.powi(2))).sqrt();
    Init::Uniform(3.0_f64.sqrt() * (gain / (fan_in as f64).sqrt()))
}

/// A 2D convolution with a square kernel, no bias, padded so that stride 1 keeps the size.
pub(crate) struct Conv {
    weight: Tensor,
    stride: [i64; 2],
    padding: [i64; 2],
}

impl Conv {
    pub(crate) fn new(
        builder: &mut Builder,
        path: &str,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
    ) -> Result<Self, ModelError> {
        builder.module(path, format!("convolution {inputs} → {outputs}, {kernel} × {kernel}, stride {stride}"));
        let shape = [outputs, inputs, kernel, kernel];
        let weight = builder.parameter(format!("{path}.weight"), &shape, kaiming(inputs * kernel * kernel))?;
        Ok(Self { weight, stride: [stride; 2], padding: [kernel / 2; 2] })
    }

    /// `[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_conv2d(&self.weight, None::<&Tensor>, self.stride, self.padding, [1, 1], 1)?)
    }
}

/// Batch normalisation over channels, as `torch.nn.BatchNorm2d`.
pub(crate) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
}

impl BatchNorm {
    const MOMENTUM: f64 = 0.1;
    const EPS: f64 = 1e-5;

    pub(crate) fn new(builder: &mut Builder, path: &str, channels: i64) -> Result<Self, ModelError> {
        builder.module(path, format!("batch norm {channels}"));
        let shape = [channels];
        Ok(Self {
            weight: builder.parameter(format!("{path}.weight"), &shape, Init::Constant(1.0))?,
            bias: builder.parameter(format!("{path}.bias"), &shape, Init::Constant(0.0))?,
            running_mean: builder.buffer(format!("{path}.running_mean"), &shape, Kind::Float, 0.0)?,
            running_var: builder.buffer(format!("{path}.running_var"), &shape, Kind::Float, 1.0)?,
            batches: builder.buffer(format!("{path}.num_batches_tracked"), &[], Kind::Int64, 0.0)?,
        })
    }

    /// `x` has the shape `[B, channels, H, W]`. In training it is normalised by the statistics of the batch, which update the running
    /// statistics.
    pub(crate) fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor, ModelError> {
        if training {
            // An operation in place needs a second handle to the counter.
            let _same = self.batches.shallow_clone().f_add_scalar_(1)?;
        }
        Ok(x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            training,
            Self::MOMENTUM,
            Self::EPS,
            true,
        )?)
    }
}

/// Layer normalisation over the last axis.
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    shape: [i64; 1],
}

impl LayerNorm {
    const EPS: f64 = 1e-5;

    pub(crate) fn new(builder: &mut Builder, path: &str, width: i64) -> Result<Self, ModelError> {
        builder.module(path, format!("layer norm {width}"));
        let shape = [width];
        Ok(Self {
            weight: builder.parameter(format!("{path}.weight"), &shape, Init::Constant(1.0))?,
            bias: builder.parameter(format!("{path}.bias"), &shape, Init::Constant(0.0))?,
            shape,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_layer_norm(self.shape, Some(&self.weight), Some(&self.bias), Self::EPS, true)?)
    }
}

/// In training sets the fraction `share` of the elements of `x` to zero, and scales the others up. Otherwise draws no random numbers.
pub(crate) fn dropout(x: Tensor, share: f64, training: bool) -> Result<Tensor, ModelError> {
    if training && share > 0.0 { Ok(x.f_dropout(share, true)?) } else { Ok(x) }
}
