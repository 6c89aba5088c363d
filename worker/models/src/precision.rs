//! The precision of forward passes and losses.

use lockstep_common::job::Autocast;
use lockstep_tch_ext::autocast;
use tch::Device;

use super::ModelError;

/// Full precision, or autocast to bfloat16 on a device.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    bf16: Option<Device>,
}

impl Precision {
    /// The precision of `numerics.autocast`, on `device`.
    pub fn new(choice: Autocast, device: Device) -> Self {
        Self { bf16: (choice == Autocast::Bf16).then_some(device) }
    }

    /// Runs `body` in this precision. Run the backward pass outside: its operators have the precision of the forward pass.
    pub fn run<T>(self, body: impl FnOnce() -> Result<T, ModelError>) -> Result<T, ModelError> {
        match self.bf16 {
            None => body(),
            Some(device) => autocast::bf16(device, body)?,
        }
    }
}
