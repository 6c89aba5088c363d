//! Blobs in the store, and checkpoints made of them.

mod saves;
mod store;
