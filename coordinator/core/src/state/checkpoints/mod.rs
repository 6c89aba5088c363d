//! From written checkpoints to committed ones.

mod commit;
mod owed;
mod written;

pub use written::Written;
