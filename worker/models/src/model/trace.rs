//! An evaluation of a model that others wrote leaves no trace, whatever it does.

use lockstep_tch_ext::generator;
use tch::{Device, Tensor};

use super::ModelError;

/// Runs `body` without gradients, and puts `buffers` and the generators of the CPU and of `device` back as they were.
pub fn without_trace<T>(
    buffers: &[(String, Tensor)],
    device: Device,
    body: impl FnOnce() -> Result<T, ModelError>,
) -> Result<T, ModelError> {
    let mut devices = vec![Device::Cpu];
    devices.extend((device != Device::Cpu).then_some(device));
    let states = devices.iter().map(|&device| generator::get_state(device)).collect::<Result<Vec<_>, _>>()?;
    tch::no_grad(|| {
        let kept = buffers.iter().map(|(_, buffer)| buffer.f_detach_copy()).collect::<Result<Vec<_>, _>>()?;
        let result = body();
        for ((_, buffer), kept) in buffers.iter().zip(&kept) {
            buffer.shallow_clone().f_copy_(kept)?;
        }
        for (&device, state) in devices.iter().zip(&states) {
            generator::set_state(device, state)?;
        }
        result
    })
}
