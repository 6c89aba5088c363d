//! What is trained, and on what: the built-in models, TorchScript models, and data sets on disk.
//!
//! A model is a fixed list of named parameters and buffers with a loss; a data set is a function from a position to a
//! sample. Neither knows of ranks, steps, optimizers or gradients' reduction: that is the training loop's.

mod data;
mod model;

pub use data::{
    Batch, DataError, DataSets, Dataset, InMemory, InputKind, SampleShape, Targets, contents_of, open_data,
    open_data_as,
};
pub use model::{
    Context, EvalSums, Model, ModelError, Parameter, Parts, Precision, Said, Watched, build_model, classified,
    disjoint, same_form, take_said, without_trace,
};
