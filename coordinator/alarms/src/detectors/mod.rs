//! One rule per file: its conditions, their reasons, and the healthy shape that it must not take for a fault.

pub(crate) mod dead;
pub(crate) mod divergence;
pub(crate) mod memory;
pub(crate) mod not_finite;
pub(crate) mod overfitting;
pub(crate) mod pace;
pub(crate) mod plateau;
pub(crate) mod starvation;
pub(crate) mod stragglers;
pub(crate) mod throttling;
pub(crate) mod vanishing;
