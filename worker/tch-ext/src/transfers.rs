//! Asynchronous copies between a device and the host, through pinned memory, which a GPU reads and writes by itself. Computing threads do
//! not wait for them.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, device_index, made};
use crate::streams::{Mark, leave_default};

/// Bytes of a piece: large enough that the start of a copy does not matter, and small enough to limit the pinned memory.
const PIECE: i64 = 32 << 20;

/// Copies a CPU tensor to `device`, after the work that this thread has given to the device, and without waiting. For the CPU returns
/// `tensor` itself.
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

/// Copies a tensor to host memory. The copy is complete when the device has reached a [`Mark`] that is created after this call. A CPU
/// tensor is returned itself.
///
/// # Errors
/// `Torch`.
pub fn download(tensor: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: the tensor lives during the call.
    made(|out| unsafe { lte_download(ffi::raw(tensor), out) })
}

/// Copies tensors from a device, piece by piece, through two pinned buffers: one is filled while the other one is emptied.
#[derive(Debug)]
pub struct Downloader {
    device: Device,
    buffers: [Tensor; 2],
}

impl Downloader {
    /// For tensors on `device`. From now on the calling thread has its own stream on the device.
    ///
    /// # Errors
    /// As for [`upload`].
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

    /// Copies `from` to `into`, a contiguous CPU tensor of the same shape and element type, and returns when the copy is complete.
    ///
    /// # Errors
    /// `Torch`, also for earlier failures of the device.
    pub fn copy(&mut self, from: &Tensor, into: &mut Tensor) -> Result<(), Error> {
        let bytes = |tensor: &Tensor| tensor.f_detach()?.f_view([-1])?.f_view_dtype(Kind::Uint8);
        let (from, into) = (bytes(&from.f_contiguous()?)?, bytes(into)?);
        let (length, piece) = (from.numel() as i64, self.buffers[0].numel() as i64);
        let mut before: Option<(Tensor, Tensor, Mark)> = None;
        for (index, start) in (0..length).step_by(piece as usize).enumerate() {
            let here = piece.min(length - start);
            let buffer = self.buffers[index % 2].f_narrow(0, 0, here)?;
            let part = from.f_narrow(0, start, here)?;
            // SAFETY: the tensors live during the call; nobody else uses the buffer, and its last contents have been copied.
            ffi::check(unsafe { lte_copy_beside(ffi::raw(&part), ffi::raw(&buffer)) })?;
            let filling = (buffer, into.f_narrow(0, start, here)?, Mark::new(self.device)?);
            before.replace(filling).map_or(Ok(()), empty)?;
        }
        before.map_or(Ok(()), empty)
    }
}

/// Waits until a piece has arrived in its buffer, and copies it to its destination.
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
