//! `[model]`: what is trained.

use serde::{Deserialize, Serialize};

use super::data::{Data, TokenType};
use super::range::is_fraction;
use crate::job::error::JobError;

/// Layers of a built-in model, of a kind: each is an object with tensors in every rank process, and a row of what is shown of the run.
const MOST_LAYERS: usize = 10_000;

/// The model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Model {
    /// Linear layers with an activation between them.
    Mlp {
        /// Widths of the hidden layers.
        hidden: Vec<u32>,
        /// Classes, or regression targets.
        outputs: u32,
        /// Between the layers.
        #[serde(default)]
        activation: Activation,
        /// Share of hidden activations set to zero in training.
        #[serde(default)]
        dropout: f64,
    },
    /// A residual convnet in the style of the CIFAR ResNets (He et al. 2015): three stages, batch normalisation.
    Resnet {
        /// Basic blocks in each of the three stages; depth = 6 × blocks + 2.
        blocks: u32,
        /// Channels of the first stage; the next two have twice and four times as many.
        width: u32,
        /// Classes.
        outputs: u32,
    },
    /// A decoder-only transformer with learned positions and pre-normalisation.
    Gpt {
        /// Blocks.
        layers: u32,
        /// Attention heads; they divide `width`.
        heads: u32,
        /// Embedding width.
        width: u32,
        /// Tokens in a sample.
        context: u32,
        /// Distinct tokens.
        #[serde(default = "bytes")]
        vocabulary: u32,
        /// Dropout after embedding, attention and MLP.
        #[serde(default)]
        dropout: f64,
    },
    /// A TorchScript file made in Python.
    Torchscript {
        /// The `.pt` file, relative to the job file.
        path: String,
        /// What `forward` returns.
        #[serde(default)]
        output: Output,
    },
    /// The program's own: what a job with `[program]` has, and need not say.
    #[default]
    Program,
}

impl Model {
    /// Its `kind`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Mlp { .. } => "mlp",
            Self::Resnet { .. } => "resnet",
            Self::Gpt { .. } => "gpt",
            Self::Torchscript { .. } => "torchscript",
            Self::Program => "program",
        }
    }

    /// `brought`: whether the job has a program that brings the model.
    pub(super) fn check(&self, data: &Data, brought: bool) -> Result<(), JobError> {
        let refuse = |key, detail: String| Err(JobError::value(key, detail));
        match *self {
            Self::Mlp { ref hidden, outputs, dropout, .. } => {
                if hidden.contains(&0) || outputs == 0 {
                    return refuse("model.hidden", "every layer needs at least one unit".into());
                }
                if !is_fraction(dropout) {
                    return refuse("model.dropout", format!("{dropout} is not from 0 to below 1"));
                }
            }
            Self::Resnet { blocks, width, outputs } => {
                if blocks == 0 || width == 0 || outputs == 0 {
                    return refuse("model.blocks", "`blocks`, `width` and `outputs` must be at least 1".into());
                }
                if !matches!(data, Data::Idx { .. } | Data::Npy { .. } | Data::Safetensors { .. }) {
                    let detail = "`resnet` needs images: data of kind `idx`, `npy` or `safetensors`";
                    return refuse("model.kind", detail.into());
                }
            }
            Self::Gpt { layers, heads, width, context, vocabulary, dropout } => {
                if layers == 0 || context == 0 || vocabulary == 0 {
                    return refuse("model.layers", "`layers`, `context` and `vocabulary` must be at least 1".into());
                }
                if heads == 0 || !width.is_multiple_of(heads) || width == 0 {
                    return refuse("model.heads", format!("{heads} does not divide `model.width` = {width}"));
                }
                if !is_fraction(dropout) {
                    return refuse("model.dropout", format!("{dropout} is not from 0 to below 1"));
                }
                if !matches!(data, Data::Tokens { .. }) {
                    return refuse("model.kind", "`gpt` needs data of kind `tokens`".into());
                }
            }
            Self::Program if !brought => {
                let detail = "missing: what is to be trained, or `[program]`, a program that brings it";
                return refuse("model", detail.into());
            }
            Self::Torchscript { .. } | Self::Program => {}
        }
        Ok(())
    }

    /// That it can read what such data give.
    pub(super) fn check_reads(&self, data: &Data) -> Result<(), JobError> {
        if matches!(data, Data::Tokens { .. }) && !matches!(self, Self::Gpt { .. }) {
            return Err(JobError::value("data.kind", "`tokens` needs a model of kind `gpt`"));
        }
        Ok(())
    }

    /// What is refused of a new job only.
    pub(super) fn check_new(&self, data: &Data) -> Result<(), JobError> {
        let (key, layers) = match self {
            Self::Mlp { hidden, .. } => ("model.hidden", hidden.len()),
            Self::Resnet { blocks, .. } => ("model.blocks", *blocks as usize),
            Self::Gpt { layers, .. } => ("model.layers", *layers as usize),
            Self::Torchscript { .. } | Self::Program => ("model", 0),
        };
        if layers > MOST_LAYERS {
            let detail = format!("{layers} layers are more than a built-in model may have, which are {MOST_LAYERS}");
            return Err(JobError::value(key, detail));
        }
        let (Data::Tokens { dtype, .. }, Self::Gpt { vocabulary, .. }) = (data, self) else { return Ok(()) };
        let (name, tokens) = match dtype {
            TokenType::U8 => ("u8", 1 << 8),
            TokenType::U16 => ("u16", 1 << 16),
        };
        if *vocabulary > tokens {
            let detail = format!("{vocabulary} is more than the {tokens} tokens of `data.dtype = \"{name}\"`");
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
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the functions'")]
pub enum Activation {
    #[default]
    Relu,
    Gelu,
    Tanh,
}

/// What a TorchScript module's `forward` returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// `forward(inputs)` returns scores; the loss is `batch.loss`.
    #[default]
    Logits,
    /// `forward(inputs, targets)` returns the mean loss over its micro-batch.
    Loss,
}
