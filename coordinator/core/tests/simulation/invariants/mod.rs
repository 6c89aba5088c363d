//! What must hold, one invariant a file. Each sees what happens and panics when it does not hold.

pub(crate) mod acknowledged;
pub(crate) mod at_most_once;
pub(crate) mod election_safety;
pub(crate) mod fencing;
pub(crate) mod liveness;
pub(crate) mod log_matching;
pub(crate) mod opened;
pub(crate) mod state_equality;
