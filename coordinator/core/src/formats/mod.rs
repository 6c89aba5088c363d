//! Encodings of rows and commands: the present format, and older ones that are converted (I15).
//!
//! | format of the state database | rows | commands | written by |
//! | --- | --- | --- | --- |
//! | 6 | postcard | postcard, version byte 1 | 0.1.0 |
//! | 7 | MessagePack with field names | the same, version byte 2 | builds before 0.2.0 |
//! | 8 | as 7, each with a checksum that the database adds | as 7, each with a checksum | builds before 0.2.0 |
//! | 9 | as 8; manifests and shares are blobs; values that reports change are in small rows | the same, version byte 3 | this program |
//!
//! Because values contain field names, a type may gain a field with `#[serde(default)]`, and older bytes stay readable. A field that
//! changes its meaning or is removed needs a new format, and a reader for the previous one.

mod encoding;
mod v6;
mod v8;

pub use encoding::EncodingError;
pub(crate) use encoding::{decode, encode};
pub use v6::upgrade_row;
pub use v8::{UpgradeError, upgrade_entry, upgrade_rows};

/// Version byte of commands that this program writes to the log.
pub(crate) const COMMAND_VERSION: u8 = 3;
