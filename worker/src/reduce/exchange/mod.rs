//! The exchange of tensors between the processes of one generation.
//!
//! The main operation is a round: every process sends a tensor to every other one at the same time. It serves to distribute slices, to
//! gather them, and to broadcast. Beside it there are the back end's own all-reduce and, on one machine, shared memory. A broken peer is
//! a typed error, never a hang. The exchange knows nothing of ranks, gradients or steps.
//!
//! CPU tensors go through TCP or shared memory ([`MeshExchange`]), CUDA tensors through NCCL ([`GroupExchange`]). Tests run the code of the
//! NCCL path with Gloo instead.

mod error;
mod group;
mod interface;
mod mesh;

pub use error::ExchangeError;
pub use group::GroupExchange;
pub use interface::{CutHandle, Exchange};
pub use mesh::MeshExchange;
