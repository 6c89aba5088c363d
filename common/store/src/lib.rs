//! The store: blobs, named by their digests, in a directory that the coordinator and every node share; and a check that they
//! really share it.
//!
//! Deliberately absent: the meaning of blobs, and permissions to read them.

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
