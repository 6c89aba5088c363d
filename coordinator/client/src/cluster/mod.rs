//! Commands that run a coordinator and manage its nodes.

pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod serve;
