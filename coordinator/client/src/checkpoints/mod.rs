//! Checkpoints: listed, and as files for other programs.

pub(crate) mod card;
pub(crate) mod export;
pub(crate) mod list;
