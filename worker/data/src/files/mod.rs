//! The data files of a run on this machine: found, verified, each opened once, and watched while a process trains on them.

mod error;
mod listed;
mod locate;
mod watch;

pub use error::FilesError;
pub use listed::listed;
pub use locate::{JobFiles, Located, Reading, locate};
pub use watch::Watch;
