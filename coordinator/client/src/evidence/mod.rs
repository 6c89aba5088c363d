//! Commands that re-run steps and compare records.

pub(crate) mod comparison;
pub(crate) mod diff;
pub(crate) mod replay;
pub(crate) mod reproduce;
pub(crate) mod target;
pub(crate) mod verify;
