//! What only looks: lists, numbers, curves, and copies for other tools.

pub(crate) mod compare;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod plot;
pub(crate) mod readers;
pub(crate) mod select;
pub(crate) mod top;
