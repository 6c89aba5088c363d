//! The way to a coordinator: its services, and blobs to and from its store.

pub(crate) mod blobs;
pub(crate) mod client;
