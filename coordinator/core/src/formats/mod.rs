//! Formats of rows and commands: how they are encoded, and which older encodings are still read (I15).
//!
//! | format of the state database | rows | commands | written by |
//! | --- | --- | --- | --- |
//! | 6 | postcard | postcard, version byte 1 | 0.1.0 |
//! | 7 | MessagePack with field names | the same, version byte 2 | builds before 0.2.0 |
//! | 8 | as 7, each with a checksum of the store's | as 7, each with a checksum | builds before 0.2.0 |
//! | 9 | as 8, without manifests and shares, which are blobs; small rows for what reports change | the same, version byte 3 | this program |
//!
//! With field names a type may gain a field: the field carries `#[serde(default)]`, and older bytes stay readable. A field
//! that changes its meaning, or goes away, needs a new format and a reader for the one before.

mod encoding;
mod v6;
mod v8;

pub use encoding::EncodingError;
pub(crate) use encoding::{decode, encode};
pub use v6::upgrade_row;
pub use v8::{UpgradeError, upgrade_entry, upgrade_rows};

/// The version byte of commands that this program puts into the log.
pub(crate) const COMMAND_VERSION: u8 = 3;
