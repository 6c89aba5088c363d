//! Data sets with access by position in O(1). Shuffling and prefetching are the caller's work.

mod array;
mod column;
mod contents;
mod dataset;
mod error;
pub mod files;
mod formats;
mod in_memory;
mod labels;
mod lookalike;
mod mapped;
mod moments;
mod open;
mod split;

pub use contents::contents_of;
pub use dataset::{Batch, DataSets, Dataset, InputKind, SampleShape, Targets};
pub use error::DataError;
pub use in_memory::InMemory;
pub use open::{open_data, open_data_as};
