//! Wire types, generated from `proto/lockstep.proto`, which documents them.

#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    missing_docs,
    reason = "generated; the .proto file is the documentation"
)]
mod generated {
    tonic::include_proto!("lockstep.v1");
}

pub use generated::*;

mod block;
mod convert;
pub use convert::BadDigest;
pub mod frame;
mod series;
