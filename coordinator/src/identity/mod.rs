//! Checks that the directory at the store's path is the store with this coordinator's checkpoints.
//!
//! ```text
//! STORE/store-id      random id, written when a coordinator first uses the store
//! DATA/store-id       the id of the store that this coordinator uses
//! ```
//!
//! A store that is not mounted is an empty directory. Without an id, runs would write their checkpoints into that directory, and the
//! checkpoints would disappear once the store is mounted over it. A copy of a store has the same id: [`marks`] detect an older copy.

mod error;
mod marks;
pub mod start_history;
mod store_id;

pub use error::IdentityError;
pub use store_id::Identity;

/// Name of the file with the id, in the store and in the data directory.
const FILE: &str = "store-id";
