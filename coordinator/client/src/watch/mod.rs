//! Commands that read: lists, numbers, curves, and copies for other tools.

pub(crate) mod compare;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod plot;
pub(crate) mod ps;
pub(crate) mod row;
pub(crate) mod select;
pub(crate) mod show;
pub(crate) mod top;
