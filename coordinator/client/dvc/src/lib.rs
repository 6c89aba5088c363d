//! Reads what DVC tracks, and fetches what is missing, without DVC.
//!
//! ```text
//! NAME.dvc, dvc.lock ──► Tracked ──► check: is the work tree's copy there and right?
//! (work tree)               └──────► fetch: remote ──► cache ──► work tree
//! NAME.dvc, dvc.lock ──► Recorded ─► fetch_to_cache: remote ──► cache
//! (commit of git)
//! ```
//!
//! Files and layouts are those of DVC 3, and of DVC 2 where a record is DVC 2's. Nothing that DVC wrote is ever changed,
//! and no file of the work tree is overwritten: after a fetch `dvc status` finds what it would find after `dvc pull`.
//! Nothing is pushed, no stage is run, and no revision is checked out.
//!
//! Futures are boxed at this door: the body of an `async fn` is compiled once more in each crate that awaits it.

mod cache;
mod config;
mod error;
mod fetch;
mod find;
mod hash;
mod ini;
mod listing;
mod record;
mod remote;
mod source;
mod state;

pub use cache::Objects;
pub use error::DvcError;
pub use fetch::{Fetched, FetchedFile, Progress};
pub use find::{Recorded, Tracked};
pub use hash::{Generation, Md5};
pub use state::{FileState, Presence, State};
