//! The pure parts of Lockstep, shared by coordinator and worker.
//!
//! **Architecture invariant (I1):** nothing in this crate does I/O, reads a clock or draws random numbers. Every function depends on
//! its arguments alone. The golden files under `golden/` freeze all bytes that are stored or hashed.

pub mod canonical;
pub mod digest;
pub mod ending;
mod error;
mod evidence;
pub mod formats;
pub mod id;
pub mod job;
pub mod listing;
pub mod manifest;
pub mod paths;
pub mod preprocessing;
mod printable;
pub mod series;
mod training;

pub use digest::{Digest, Domain};
pub use ending::Ending;
pub use error::{chain, without_frames};
pub use evidence::{contents, numerics, record};
pub use id::{NodeId, RequestId, RunId};
pub use paths::JobPaths;
pub use printable::{is_steering, printable, quoted, shortened};
pub use training::{permutation, reduction, sampler, schedule, seed, world};
