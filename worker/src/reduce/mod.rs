//! From every rank's gradient to their mean, in one fixed order of additions.
//!
//! [`Layout`] says where each parameter's gradient lies in a flat tensor, with the loss behind the last; [`Reducer`] takes
//! one flat tensor a rank for a leaf of the tree in `lockstep_common::reduction`, and ends with the mean in every process;
//! where it pays, while the backward pass still goes on.

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
