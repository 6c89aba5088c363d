//! Checkpoints from the first share to the commit.

mod commit;
mod owed;
mod written;

pub use written::Written;
