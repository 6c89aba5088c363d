//! One rule a file: what it asks for, why, and what healthy shape it must not take for a fault.

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
