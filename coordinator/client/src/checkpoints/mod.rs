//! Commands that list checkpoints, and export them as files for other programs.

pub(crate) mod card;
pub(crate) mod export;
pub(crate) mod list;
