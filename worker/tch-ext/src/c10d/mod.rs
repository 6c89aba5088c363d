//! Process groups of PyTorch's c10d: NCCL for CUDA tensors, and the store by which their members find each other. Other crates can add back
//! ends.

mod error;
mod group;
mod store;

pub use error::Error;
pub use group::{AbortHandle, Backend, CGroup, Connect, ProcessGroup};
pub use store::{CStore, Store};
