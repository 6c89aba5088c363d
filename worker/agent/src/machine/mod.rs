//! The machine: its name, its devices and their readings.

pub(crate) mod devices;
pub(crate) mod host;
pub(crate) mod nvml;
