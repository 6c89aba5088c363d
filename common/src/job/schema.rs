//! The keys of `job.toml`, their defaults and meaning. [`super::validate`] says which combinations are allowed.

use serde::{Deserialize, Serialize};

use super::numerics::Numerics;
use super::program::Program;
use crate::sampler::LastBatch;
use crate::schedule::Schedule;

/// Everything a job says. All of it is hashed into the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What people call it.
    pub name: String,
    /// Root of every random number of the run. The first weights of a TorchScript module are not drawn from it: they are in
    /// the module's file.
    #[serde(default)]
    pub seed: u64,
    /// Optimizer steps to train for.
    pub steps: u64,
    /// Logical data-parallel ranks: seeds, sampler positions and micro-batches hang on them. Fixed for the run's life.
    #[serde(default = "one")]
    pub ranks: u32,
    /// How many processes may carry the ranks.
    #[serde(default)]
    pub world: World,
    /// What is trained.
    #[serde(default)]
    pub model: Model,
    /// A program of the user's own that brings the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// What it is trained on.
    pub data: Data,
    /// How samples are put together.
    pub batch: Batch,
    /// How gradients become updates.
    pub optimizer: Optimizer,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// Evaluation between steps; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Eval>,
    /// When to checkpoint, and what to keep.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// What fixes the bits.
    #[serde(default)]
    pub numerics: Numerics,
    /// What is reported beside loss, learning rate and gradient norm.
    #[serde(default)]
    pub report: Report,
    /// What is asked of the code's repository.
    #[serde(default)]
    pub code: Code,
}

pub(super) fn one() -> u32 {
    1
}

/// How many operating-system processes carry the ranks. Never changes the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Processes to use at most; default: one for each rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Processes that suffice to start or to go on after a failure; default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_processes: Option<u32>,
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

/// The element type of a token file, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the types'")]
pub enum TokenType {
    #[default]
    U8,
    U16,
}

/// What a target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A class number, from 0.
    #[default]
    Classification,
    /// A real number.
    Regression,
}

/// The data set. Paths are relative to the job file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Data {
    /// A flat file of tokens, cut into windows of the model's context.
    Tokens {
        /// The file.
        path: String,
        /// Its element type.
        #[serde(default)]
        dtype: TokenType,
        /// Share of windows, at the end of the file, kept for evaluation.
        #[serde(default)]
        validation: f64,
        /// Takes the file as it is. By default a file that looks like another format (an npy array, a zip archive, text
        /// read as 16-bit tokens) is refused.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept_as_is: bool,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Images and labels in IDX format (as MNIST), plain or gzipped.
    Idx {
        /// Training images, `u8`, N × H × W.
        images: String,
        /// Training labels, `u8`, N.
        labels: String,
        /// Validation images.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_images: Option<String>,
        /// Validation labels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_labels: Option<String>,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// A table of numbers with a header row.
    Csv {
        /// The file.
        path: String,
        /// The column to predict; all others are inputs. Inputs and real targets are standardised by training mean and
        /// deviation.
        target: String,
        /// What the target is.
        #[serde(default)]
        task: Task,
        /// Share of rows kept for evaluation, chosen by the root seed.
        #[serde(default)]
        validation: f64,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Two npy arrays, the first axis the samples.
    Npy {
        /// `f4` or `u1` inputs.
        inputs: String,
        /// Integer classes or `f4` targets.
        targets: String,
        /// Share of samples kept for evaluation, chosen by the root seed.
        #[serde(default)]
        validation: f64,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Two tensors of a safetensors file, the first axis the samples.
    Safetensors {
        /// The file.
        path: String,
        /// Name of the input tensor.
        inputs: String,
        /// Name of the target tensor.
        targets: String,
        /// Share of samples kept for evaluation, chosen by the root seed.
        #[serde(default)]
        validation: f64,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// Whatever the job's own program reads.
    Files {
        /// Files, and directories with all that is in them.
        paths: Vec<String>,
        /// The git revision that the data is taken as of, what DVC recorded in it included; the work tree's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
}

/// A loss over logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Softmax cross-entropy with class numbers.
    CrossEntropy,
    /// Mean squared error.
    Mse,
}

/// How samples are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Samples in one step over all ranks; divisible by `ranks`, at most 16,777,216.
    pub size: u64,
    /// What happens to the last partial batch of an epoch.
    #[serde(default)]
    pub last: LastBatch,
    /// Whether each epoch has its own order.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// The loss over logits; default: squared error for `csv` with `task = "regression"`, else cross-entropy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossKind>,
}

fn yes() -> bool {
    true
}

/// How gradients become updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Learning rate, before the schedule.
    pub lr: f64,
    /// Weight decay; on matrices and kernels only, unless `decay_all`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decays biases and normalisation weights too.
    #[serde(default)]
    pub decay_all: bool,
    /// SGD: momentum.
    #[serde(default)]
    pub momentum: f64,
    /// SGD: Nesterov's form of momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// Adam and AdamW: decay rates of the two moments.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Adam and AdamW: added to the denominator.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Scales gradients down to this global norm; none if absent. By the factor of `torch.nn.utils.clip_grad_norm_`, whose
    /// norm is a sum in 32 bits, parameter by parameter; here all squares are added in 64 bits, so the last bits may differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

/// The update rule, as in `torch.optim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the rules'")]
pub enum OptimizerKind {
    Sgd,
    Adam,
    Adamw,
}

/// Evaluation on the validation samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// Steps between evaluations.
    pub every_steps: u64,
    /// Validation samples to use at most, the first ones; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// How much each feature of the inputs counts; not measured if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_importance: Option<FeatureImportance>,
}

/// How much each feature of the inputs counts, for tables and images: by permutation (what the loss rises by, if the feature's
/// values are dealt out anew among the samples) and by gradient times input. Of an image, a feature is one cell of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureImportance {
    /// Steps between measurements; 0: only at the end. The last step always has one.
    #[serde(default)]
    pub every_steps: u64,
    /// Validation samples to use at most, the first ones.
    #[serde(default = "importance_samples")]
    pub samples: u64,
    /// Times that each feature is dealt out; what is reported is the mean.
    #[serde(default = "three")]
    pub repeats: u32,
}

fn importance_samples() -> u64 {
    256
}

fn three() -> u32 {
    3
}

/// When to checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0: only at the end. The last step always has one.
    #[serde(default)]
    pub every_steps: u64,
}

/// What is reported beside loss, learning rate and gradient norm, which are recorded at every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Steps between reports of the gradient norm of each parameter; 0: never.
    #[serde(default = "ten")]
    pub layer_norms_every: u64,
    /// Steps between fingerprints of every parameter, gradient, optimizer tensor and buffer, which are compared between
    /// processes and kept in the record; 0: never.
    #[serde(default = "two_hundred")]
    pub fingerprints_every: u64,
    /// Steps between reports of what costs more to measure: distributions of each parameter, its gradient and of what each
    /// layer gives, norms of parameters and of what a step changes in them, and each rank's own gradient norm; 0: never.
    #[serde(default = "two_hundred")]
    pub histograms_every: u64,
}

fn ten() -> u64 {
    10
}

fn two_hundred() -> u64 {
    200
}

impl Default for Report {
    fn default() -> Self {
        Self { layer_norms_every: ten(), fingerprints_every: two_hundred(), histograms_every: two_hundred() }
    }
}

/// What is asked of the code's repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Accepts a work tree with uncommitted changes; that it was dirty is written into every checkpoint.
    #[serde(default)]
    pub allow_dirty: bool,
}
