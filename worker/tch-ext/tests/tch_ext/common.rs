//! Helpers: the devices of this machine, and a way to run PyTorch for comparison.

use std::path::Path;
use std::process::Command;

use lockstep_support::printed;
use tch::{Cuda, Device};

/// The CPU, and all CUDA devices.
pub(crate) fn devices() -> Vec<Device> {
    let cuda = usize::try_from(Cuda::device_count()).unwrap_or(0);
    std::iter::once(Device::Cpu).chain((0..cuda).map(Device::Cuda)).collect()
}

/// Runs `tests/python/<script>` with the Python whose torch the shim was built against. Panics with its output if it fails.
pub(crate) fn python(script: &str, arguments: &[&Path]) {
    let mut python = Command::new(env!("LOCKSTEP_PYTHON"));
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script)).args(arguments);
    printed(python.env("OMP_NUM_THREADS", "1"));
}
