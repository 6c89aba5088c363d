//! The numbers of runs as they come: kept, and looked through for what is wrong, which whoever asked for it is told.

pub mod hooks;
pub(crate) mod mismatch;
pub(crate) mod saves;
pub(crate) mod tracker;
