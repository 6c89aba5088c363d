//! Commands that start, follow, annotate and cancel runs, on a cluster or on this machine alone.

pub(crate) mod annotate;
pub(crate) mod cancel;
pub(crate) mod follow;
pub(crate) mod local;
pub(crate) mod local_dir;
pub(crate) mod prepare;
pub(crate) mod resume;
pub(crate) mod start;
pub(crate) mod unused;
