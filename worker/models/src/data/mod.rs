//! Data sets: map-style, a sample is found by its position in O(1), nothing is shuffled or prefetched in here.

mod array;
mod column;
mod contents;
mod csv;
mod dataset;
mod error;
mod idx;
mod in_memory;
mod labels;
mod lookalike;
mod mapped;
mod moments;
mod npy;
mod open;
mod safetensors;
mod split;
mod tokens;

pub use contents::contents_of;
pub use dataset::{Batch, DataSets, Dataset, InputKind, SampleShape, Targets};
pub use error::DataError;
pub use in_memory::InMemory;
pub use open::{open_data, open_data_as};
