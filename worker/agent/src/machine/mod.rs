//! The machine: what it is called, its devices, and what they say of themselves.

pub(crate) mod devices;
pub(crate) mod host;
pub(crate) mod nvml;
