//! Copies between a device and the host's memory, through pinned memory, which a GPU reads and writes by itself: whoever computes waits
//! for none of them.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, device_index, made};
use crate::streams::{Mark, leave_default};

/// Bytes of a piece: enough that its start costs nothing, and that a large tensor takes no pinned memory of its size.
const PIECE: i64 = 32 << 20;

/// `tensor`, which is on the CPU, on `device`: copied behind what this thread has given the device to do, without waiting for it. Itself for
/// the CPU.
///
/// # Errors
/// `NoSuchDevice` for a device that is neither CPU nor CUDA; `Torch`.
pub fn upload(tensor: Tensor, device: Device) -> Result<Tensor, Error> {
    let index = device_index(device, "copy")?;
    if device == Device::Cpu {
        return Ok(tensor);
    }
    // SAFETY: the tensor lives during the call.
    made(|out| unsafe { lte_upload(ffi::raw(&tensor), index, out) })
}

/// `tensor` in the host's memory, which is complete when a mark that is made after this call is reached. Itself if it is on the CPU.
///
/// # Errors
/// `Torch`.
pub fn download(tensor: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: the tensor lives during the call.
    made(|out| unsafe { lte_download(ffi::raw(tensor), out) })
}

/// Copies whole tensors from a device, piece by piece through two pinned buffers: one is filled while the other is emptied.
#[derive(Debug)]
pub struct Downloader {
    device: Device,
    buffers: [Tensor; 2],
}

impl Downloader {
    /// For tensors on `device`. What the calling thread gives it to do goes to a stream of its own from now on.
    ///
    /// # Errors
    /// As of [`upload`].
    pub fn new(device: Device) -> Result<Self, Error> {
        Self::with_pieces(device, PIECE)
    }

    fn with_pieces(device: Device, bytes: i64) -> Result<Self, Error> {
        leave_default(device)?;
        let index = device_index(device, "copy")?;
        // SAFETY: takes plain numbers.
        let buffer = || made(|out| unsafe { lte_pinned(bytes, index, out) });
        Ok(Self { device, buffers: [buffer()?, buffer()?] })
    }

    /// Copies `from` to `into`, a contiguous tensor of the same shape and dtype in the host's memory, and returns when it is there.
    ///
    /// # Errors
    /// `Torch`, also for what the device failed at until then.
    pub fn copy(&mut self, from: &Tensor, into: &mut Tensor) -> Result<(), Error> {
        let bytes = |tensor: &Tensor| tensor.f_detach()?.f_view([-1])?.f_view_dtype(Kind::Uint8);
        let (from, into) = (bytes(&from.f_contiguous()?)?, bytes(into)?);
        let (length, piece) = (from.numel() as i64, self.buffers[0].numel() as i64);
        let mut before: Option<(Tensor, Tensor, Mark)> = None;
        for (index, start) in (0..length).step_by(piece as usize).enumerate() {
            let here = piece.min(length - start);
            let buffer = self.buffers[index % 2].f_narrow(0, 0, here)?;
            let part = from.f_narrow(0, start, here)?;
            // SAFETY: the tensors live during the call; nobody else has the buffer, and what it held was emptied.
            ffi::check(unsafe { lte_copy_beside(ffi::raw(&part), ffi::raw(&buffer)) })?;
            let filling = (buffer, into.f_narrow(0, start, here)?, Mark::new(self.device)?);
            before.replace(filling).map_or(Ok(()), empty)?;
        }
        before.map_or(Ok(()), empty)
    }
}

/// Brings a piece from its buffer to where it belongs, when it has arrived there.
fn empty((buffer, mut into, arrived): (Tensor, Tensor, Mark)) -> Result<(), Error> {
    arrived.synchronize()?;
    Ok(into.f_copy_(&buffer)?)
}

unsafe extern "C" {
    fn lte_upload(tensor: *const CTensor, device: i32, out: *mut *mut CTensor) -> *mut c_char;
    fn lte_download(tensor: *const CTensor, out: *mut *mut CTensor) -> *mut c_char;
    fn lte_pinned(bytes: i64, device: i32, out: *mut *mut CTensor) -> *mut c_char;
    fn lte_copy_beside(from: *const CTensor, into: *const CTensor) -> *mut c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_of_any_shape_arrives_whole_in_pieces() {
        let mut downloader = Downloader::with_pieces(Device::Cpu, 64).unwrap();
        for length in [0, 1, 15, 16, 17, 33, 200] {
            let from = Tensor::arange(length, (Kind::Float, Device::Cpu)) * 0.5;
            let mut into = Tensor::zeros([length], (Kind::Float, Device::Cpu));
            downloader.copy(&from, &mut into).unwrap();
            assert_eq!(Vec::<f32>::try_from(&into).unwrap(), Vec::<f32>::try_from(&from).unwrap());
        }
        let from = Tensor::arange(60, (Kind::Int64, Device::Cpu)).view([5, 12]).transpose(0, 1);
        let mut into = Tensor::zeros([12, 5], (Kind::Int64, Device::Cpu));
        downloader.copy(&from, &mut into).unwrap();
        assert!(into.equal(&from), "also one whose elements lie in another order");
        let mut scalar = Tensor::from(0.0_f32);
        downloader.copy(&Tensor::from(2.5_f32), &mut scalar).unwrap();
        assert_eq!(scalar.double_value(&[]), 2.5);
    }
}
