//! How the processes of one generation give each other tensors: all that the reduction tree needs.
//!
//! One primitive, a duplex round over all pairs at once, serves for slices, for gathering them and for broadcasts; beside
//! it stand the back end's own all-reduce, and memory that all see, where there is any. A broken peer is a typed error, never a hang. Deliberately absent: any
//! knowledge of ranks, gradients or steps.
//!
//! CPU tensors go over TCP or shared memory ([`MeshExchange`]), CUDA tensors over NCCL ([`GroupExchange`]); Gloo is the
//! tested twin of the NCCL path.

mod error;
mod group;
mod interface;
mod mesh;

pub use error::ExchangeError;
pub use group::GroupExchange;
pub use interface::{CutHandle, Exchange};
pub use mesh::MeshExchange;
