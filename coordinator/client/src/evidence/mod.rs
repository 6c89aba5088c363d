//! Evidence: steps are computed again, and records compared.

pub(crate) mod comparison;
pub(crate) mod diff;
pub(crate) mod replay;
pub(crate) mod reproduce;
pub(crate) mod target;
pub(crate) mod verify;
