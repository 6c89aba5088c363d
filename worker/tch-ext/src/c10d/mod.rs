//! Process groups through PyTorch's c10d: NCCL for CUDA tensors, and the store by which their members meet. Other crates may bring
//! other back ends.

mod error;
mod group;
mod store;

pub use error::Error;
pub use group::{AbortHandle, Backend, CGroup, Connect, ProcessGroup};
pub use store::{CStore, Store};
