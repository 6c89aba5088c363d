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

/// What builds must share to work together: raised when a message changes its meaning, or one waits for another that earlier builds
/// do not send. Builds before it existed count as 1.
pub const PROTOCOL: u32 = 6;

/// Longest description (bytes of its blob) of one process's share of a checkpoint that a coordinator takes: it reads them whole.
pub const MAX_SHARE_BYTES: usize = 64 << 20;

/// Longest block of reports (encoded) that a coordinator takes: it becomes a command, and the log takes none of more than 16 MiB.
pub const MAX_BLOCK_BYTES: usize = 15 << 20;

/// Why a peer of another protocol is refused; `None` if both speak the same. 0 is what builds say that know no protocol.
pub fn misfit(peer: &str, version: &str, protocol: u32) -> Option<String> {
    let protocol = protocol.max(1);
    let version = if version.is_empty() { "an unnamed version" } else { version };
    (protocol != PROTOCOL).then(|| {
        format!(
            "{peer} is of another build: {version}, protocol {protocol}; this one is {}, protocol {PROTOCOL}. Install the same \
             version of Lockstep on all machines, and build programs against it",
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
