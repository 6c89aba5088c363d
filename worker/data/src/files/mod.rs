//! The data files of a run on this machine: finds and verifies them, opens each once, and watches them during training.

mod error;
mod listed;
mod locate;
mod watch;

pub use error::FilesError;
pub use listed::listed;
pub use locate::{JobFiles, Located, Reading, locate};
pub use watch::Watch;
