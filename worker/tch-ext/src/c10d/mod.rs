//! Process groups through PyTorch's c10d: Gloo for CPU tensors, NCCL for CUDA tensors, and the store by which their
//! members meet.

mod error;
mod group;
mod store;

pub use error::Error;
pub use group::{AbortHandle, Backend, Bind, ProcessGroup};
pub use store::Store;
