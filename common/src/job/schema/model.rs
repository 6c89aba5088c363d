//! `[model]`: the model to train.

use serde::{Deserialize, Serialize};

use super::data::{Data, TokenType};
use super::range::is_fraction;
use crate::job::error::JobError;

/// The most layers of a built-in model. Each layer has tensors in every rank process and series in the tracking database.
const MOST_LAYERS: usize = 10_000;

/// The model to train: a built-in one, a TorchScript module or a program's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Model {
    /// Linear layers with an activation between them.
    Mlp {
        /// Widths of the hidden layers, each at least 1; an empty list gives a linear model.
        hidden: Vec<u32>,
        /// Number of classes or of regression targets.
        outputs: u32,
        /// Activation function between the layers.
        #[serde(default)]
        activation: Activation,
        /// Share of hidden activations that training sets to zero; from 0 to below 1.
        #[serde(default)]
        dropout: f64,
    },
    /// A residual convnet in the style of the CIFAR ResNets (He et al. 2015): three stages, batch normalisation.
    Resnet {
        /// Basic blocks in each of the three stages; depth = 6 × blocks + 2.
        blocks: u32,
        /// Channels of the first stage; the next two have twice and four times as many.
        width: u32,
        /// Number of classes.
        outputs: u32,
    },
    /// A decoder-only transformer with learned positions and pre-normalisation.
    Gpt {
        /// Number of transformer blocks.
        layers: u32,
        /// Number of attention heads in each block; must divide `width`.
        heads: u32,
        /// Width of the embedding and of every block.
        width: u32,
        /// Number of tokens in a sample.
        context: u32,
        /// Number of distinct tokens.
        #[serde(default = "bytes")]
        vocabulary: u32,
        /// Dropout after embedding, attention and MLP; from 0 to below 1.
        #[serde(default)]
        dropout: f64,
    },
    /// A TorchScript file that `torch.jit.save` wrote.
    Torchscript {
        /// Path of the `.pt` file, relative to the job file.
        path: String,
        /// The result of `forward`.
        #[serde(default)]
        output: Output,
    },
    /// The model of the job's `[program]`: the default, so such a job needs no `[model]`.
    #[default]
    Program,
}

impl Model {
    /// The value of `model.kind` in the job.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Mlp { .. } => "mlp",
            Self::Resnet { .. } => "resnet",
            Self::Gpt { .. } => "gpt",
            Self::Torchscript { .. } => "torchscript",
            Self::Program => "program",
        }
    }

    /// Checks the values and the kind of data. `brought`: whether the job has a program, which contains the model.
    pub(super) fn check(&self, data: &Data, brought: bool) -> Result<(), JobError> {
        let refuse = |key, detail: String| Err(JobError::value(key, detail));
        match *self {
            Self::Mlp { ref hidden, outputs, dropout, .. } => {
                if hidden.contains(&0) || outputs == 0 {
                    let found = format!("`hidden` = {hidden:?} and `outputs` = {outputs}");
                    return refuse(
                        "model.hidden",
                        format!("every width must be at least 1: {}", crate::quoted(&found)),
                    );
                }
                if !is_fraction(dropout) {
                    return refuse("model.dropout", format!("{dropout} is not from 0 to below 1"));
                }
            }
            Self::Resnet { blocks, width, outputs } => {
                if blocks == 0 || width == 0 || outputs == 0 {
                    let found = format!("`blocks` = {blocks}, `width` = {width} and `outputs` = {outputs}");
                    return refuse("model.blocks", format!("{found} must each be at least 1"));
                }
                if !matches!(data, Data::Idx { .. } | Data::Npy { .. } | Data::Safetensors { .. }) {
                    let detail = "`resnet` needs images: set `data.kind` to `idx`, `npy` or `safetensors`";
                    return refuse("model.kind", detail.into());
                }
            }
            Self::Gpt { layers, heads, width, context, vocabulary, dropout } => {
                if layers == 0 || context == 0 || vocabulary == 0 {
                    let found = format!("`layers` = {layers}, `context` = {context} and `vocabulary` = {vocabulary}");
                    return refuse("model.layers", format!("{found} must each be at least 1"));
                }
                if heads == 0 || !width.is_multiple_of(heads) || width == 0 {
                    return refuse("model.heads", format!("{heads} does not divide `model.width` = {width}"));
                }
                if !is_fraction(dropout) {
                    return refuse("model.dropout", format!("{dropout} is not from 0 to below 1"));
                }
                if !matches!(data, Data::Tokens { .. }) {
                    return refuse("model.kind", "`gpt` needs tokens: set `data.kind` to `tokens`".into());
                }
            }
            Self::Program if !brought => {
                let detail = "missing: add a `[model]`, or a `[program]` that contains the model";
                return refuse("model", detail.into());
            }
            Self::Torchscript { .. } | Self::Program => {}
        }
        Ok(())
    }

    /// Checks that the model can read samples of this kind of data.
    pub(super) fn check_reads(&self, data: &Data) -> Result<(), JobError> {
        if matches!(data, Data::Tokens { .. }) && !matches!(self, Self::Gpt { .. }) {
            let detail = format!("`tokens` needs a model of kind `gpt`, not `{}`", self.word());
            return Err(JobError::value("data.kind", detail));
        }
        Ok(())
    }

    /// Limits that only new jobs must keep.
    pub(super) fn check_new(&self, data: &Data) -> Result<(), JobError> {
        let (key, layers) = match self {
            Self::Mlp { hidden, .. } => ("model.hidden", hidden.len()),
            Self::Resnet { blocks, .. } => ("model.blocks", *blocks as usize),
            Self::Gpt { layers, .. } => ("model.layers", *layers as usize),
            Self::Torchscript { .. } | Self::Program => ("model", 0),
        };
        if layers > MOST_LAYERS {
            let detail = format!("{layers} layers are too many: a built-in model may have {MOST_LAYERS}");
            return Err(JobError::value(key, detail));
        }
        let (Data::Tokens { dtype, .. }, Self::Gpt { vocabulary, .. }) = (data, self) else { return Ok(()) };
        let (name, tokens) = match dtype {
            TokenType::U8 => ("u8", 1 << 8),
            TokenType::U16 => ("u16", 1 << 16),
        };
        if *vocabulary > tokens {
            let detail = format!("{vocabulary} is more than the {tokens} tokens that `data.dtype = \"{name}\"` allows");
            return Err(JobError::value("model.vocabulary", detail));
        }
        Ok(())
    }
}

fn bytes() -> u32 {
    256
}

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants have the names of the functions")]
pub enum Activation {
    #[default]
    Relu,
    Gelu,
    Tanh,
}

/// The result of a TorchScript module's `forward`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// `forward(inputs)` returns scores; the loss is `batch.loss`.
    #[default]
    Logits,
    /// `forward(inputs, targets)` returns the mean loss over its micro-batch.
    Loss,
}
