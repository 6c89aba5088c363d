//! Formats of rows and commands: how they are encoded, and which older encodings are still read (I15).
//!
//! | format of the state database | rows | commands | written by |
//! | --- | --- | --- | --- |
//! | 6 | postcard | postcard, version byte 1 | 0.1.0 |
//! | 7 | MessagePack with field names | the same, version byte 2 | builds before 0.2.0 |
//! | 8 | as 7, each with a checksum of the store's | as 7, each with a checksum | this program |
//!
//! With field names a type may gain a field: the field carries `#[serde(default)]`, and older bytes stay readable. A field
//! that changes its meaning, or goes away, needs a new format and a reader for the one before.

mod encoding;
mod v6;

pub use encoding::EncodingError;
pub(crate) use encoding::{decode, encode};
pub use v6::{command as command_of_version_1, upgrade_row};
