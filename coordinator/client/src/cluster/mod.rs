//! The coordinator itself, and its nodes.

pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod serve;
