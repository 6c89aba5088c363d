//! Blocks of reports: their kinds of reports, encoding by processes, decoding by the coordinator and by clients.

mod decoded;
mod encoded;
mod parts;

pub use decoded::{DecodedBlock, UnsoundBlock, decode_block};
pub use parts::KINDS;
