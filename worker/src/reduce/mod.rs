//! Reduces the gradients of all ranks to their mean, in one fixed order of additions.
//!
//! [`Layout`] defines the flat tensor of a rank: the gradients of all parameters, then the loss. [`Reducer`] adds the flat tensors of the
//! ranks in the order of the tree in `lockstep_common::reduction`, over all processes, and gives every process the mean. For large models
//! over a network or on GPUs, it does so during the backward pass.

mod exchange;
mod finish;
mod layout;
mod norm;
mod overlap;
mod process_index;
mod reducer;
#[cfg(test)]
mod tests;
mod used;

pub use exchange::{CutHandle, Exchange, ExchangeError, GroupExchange, MeshExchange};
pub use layout::Layout;
pub use norm::norm;
pub use process_index::ProcessIndex;
pub(crate) use reducer::bucket_bytes;
pub use reducer::{Leaf, Reducer};
