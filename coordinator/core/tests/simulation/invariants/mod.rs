//! What must hold, one invariant a file. Each sees what happens and panics when it does not hold.

pub mod acknowledged;
pub mod at_most_once;
pub mod election_safety;
pub mod fencing;
pub mod liveness;
pub mod log_matching;
pub mod state_equality;
