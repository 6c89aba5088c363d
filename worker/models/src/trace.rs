//! Undoes the side effects of an evaluation of foreign code.

use lockstep_tch_ext::generator;
use tch::{Device, Kind, Tensor};

use super::ModelError;

/// Runs `body` without gradients, and then restores `buffers` and the generators of the CPU and of `device`.
///
/// # Errors
/// The error of `body`; `Buffer` if it changed the type or shape of a buffer.
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
        // The error of the body is more useful than an error of the restoration after it.
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

/// Checks that a buffer has kept its type and shape; a copy between different shapes would broadcast values.
///
/// # Errors
/// `Buffer` if the type or shape has changed.
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
