//! The store's identity: which store a coordinator's checkpoints are in.
//!
//! ```text
//! STORE/store-id      drawn when a coordinator first uses the store
//! DATA/store-id       the id of the store that this coordinator uses
//! ```
//!
//! A store that is not mounted is an empty directory. Without the identity runs would finish there, and their checkpoints
//! would vanish when the store is mounted over it. A copy has the same identity: [`marks`] tell it from the store.

mod error;
mod marks;
pub mod start_history;
mod store_id;

pub use error::IdentityError;
pub use store_id::Identity;

/// Name of the file, in the store and in the data directory.
const FILE: &str = "store-id";
