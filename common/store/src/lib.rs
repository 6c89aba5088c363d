//! The store: blobs by their digests, in a directory that the coordinator and every node see, and the check that they see the same.
//!
//! Deliberately absent: what the blobs are, and who may name them.

mod contents;
mod directory;
mod error;
mod layout;
mod left;
mod reader;
pub mod shared;
mod together;
mod unfinished;
mod writers;

pub use directory::{BlobStore, PIECE_BYTES};
pub use error::BlobError;
pub use reader::BlobReader;
pub use writers::{BlobWriter, Part};

#[cfg(test)]
mod tests;
