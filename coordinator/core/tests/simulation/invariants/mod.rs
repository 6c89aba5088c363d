//! The invariants, one per file. Each observes the simulation and panics when it is violated.

pub(crate) mod acknowledged;
pub(crate) mod at_most_once;
pub(crate) mod election_safety;
pub(crate) mod fencing;
pub(crate) mod liveness;
pub(crate) mod log_matching;
pub(crate) mod opened;
pub(crate) mod state_equality;
