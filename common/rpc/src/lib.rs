//! Wire types, generated from `proto/lockstep.proto`, which documents them.

#[expect(
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::allow_attributes,
    missing_docs,
    reason = "generated; the .proto file is the documentation"
)]
mod generated {
    tonic::include_proto!("lockstep.v1");
}

pub use generated::*;

/// Version of the protocol. Only builds with the same version work together. It is increased when a message changes its meaning, or
/// when one side waits for a message that earlier builds do not send. Builds from before it existed count as 1.
pub const PROTOCOL: u32 = 6;

/// Size limit of the blob that describes one process's share of a checkpoint, in bytes. A coordinator reads such blobs into memory.
pub const MAX_SHARE_BYTES: usize = 64 << 20;

/// Size limit of an encoded block of reports, in bytes. A block becomes a command, and the log accepts at most 16 MiB.
pub const MAX_BLOCK_BYTES: usize = 15 << 20;

/// The message that rejects a peer of another protocol; `None` if both have the same. Builds that know no protocol send 0.
pub fn misfit(peer: &str, version: &str, protocol: u32) -> Option<String> {
    let protocol = protocol.max(1);
    let version = if version.is_empty() { "unknown version" } else { version };
    (protocol != PROTOCOL).then(|| {
        format!(
            "{peer} has an incompatible version: {version}, protocol {protocol}; this program has {}, protocol {PROTOCOL}. Install the \
             same version of Lockstep on all machines, and build programs against it",
            env!("CARGO_PKG_VERSION")
        )
    })
}

mod block;
mod busy;
mod convert;
pub use block::{DecodedBlock, KINDS, UnsoundBlock, decode_block};
pub use busy::{busy, is_busy};
pub use convert::BadDigest;
pub mod frame;
mod series;
