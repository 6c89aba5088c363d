//! `[model]`: what is trained.

use serde::{Deserialize, Serialize};

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
