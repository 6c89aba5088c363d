//! Blocks of reports: their parts, how they are encoded by who says them, and decoded by who draws them.

mod decoded;
mod encoded;
mod parts;

pub use decoded::{DecodedBlock, UnsoundBlock, decode_block};
pub use parts::KINDS;
