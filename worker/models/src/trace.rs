//! An evaluation of a model that others wrote leaves no trace, whatever it does.

use lockstep_tch_ext::generator;
use tch::{Device, Kind, Tensor};

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
        let restored = restore(buffers, &kept, &devices, &states);
        // Why the body failed is worth more than what could not be restored after it.
        result.and_then(|value| restored.map(|()| value))
    })
}

fn restore(
    buffers: &[(String, Tensor)],
    kept: &[Tensor],
    devices: &[Device],
    states: &[Vec<u8>],
) -> Result<(), ModelError> {
    for ((name, buffer), kept) in buffers.iter().zip(kept) {
        same_form(name, kept, buffer)?;
        buffer.shallow_clone().f_copy_(kept)?;
    }
    for (&device, state) in devices.iter().zip(states) {
        generator::set_state(device, state)?;
    }
    Ok(())
}

/// That a buffer has the type and shape that it had: a copy into another would stretch or cut it.
///
/// # Errors
/// `Buffer`.
pub fn same_form(name: &str, before: &Tensor, now: &Tensor) -> Result<(), ModelError> {
    let (expected, found) = (form(before)?, form(now)?);
    if expected == found {
        return Ok(());
    }
    let told = |(kind, size): (Kind, Vec<i64>)| format!("{kind:?} of shape {size:?}");
    Err(ModelError::Buffer { name: name.to_owned(), expected: told(expected), found: told(found) })
}

fn form(tensor: &Tensor) -> Result<(Kind, Vec<i64>), ModelError> {
    Ok((tensor.f_kind()?, tensor.size()))
}
