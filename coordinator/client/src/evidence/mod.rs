//! Evidence: steps made again, records side by side.

pub(crate) mod comparison;
pub(crate) mod diff;
pub(crate) mod replay;
pub(crate) mod reproduce;
pub(crate) mod target;
pub(crate) mod verify;
