//! The contents of a batch whose data set does not record the bytes that it read.

use lockstep_common::contents::Contents;
use lockstep_tch_ext::memory::bytes_of;
use tch::{Device, Tensor};

use super::dataset::Batch;

/// Digests the bytes of `batch`, which has the samples at `positions`. Each row counts for itself, so that the contents of a
/// global batch do not depend on how it is divided among ranks. Tensors on a GPU are copied to the CPU first.
///
/// `None` if a tensor has no plain bytes, for example a sparse one.
pub fn contents_of(batch: &Batch, positions: &[u64]) -> Option<Contents> {
    let mut contents = Contents::default();
    for (array, tensor) in [&batch.inputs, &batch.targets].into_iter().chain(&batch.more).enumerate() {
        add(&mut contents, array as u64, tensor, positions)?;
    }
    Some(contents)
}

fn add(contents: &mut Contents, array: u64, tensor: &Tensor, positions: &[u64]) -> Option<()> {
    let plain = tensor.f_detach().and_then(|tensor| tensor.f_to_device(Device::Cpu)).ok()?;
    let plain = plain.f_contiguous().ok()?;
    let bytes = bytes_of(&plain).ok()?;
    let samples = plain.size().first().is_some_and(|&rows| rows as usize == positions.len());
    if samples && bytes.len() >= positions.len() {
        for (row, position) in bytes.chunks_exact(bytes.len() / positions.len()).zip(positions) {
            contents.add(array, *position, row);
        }
    } else {
        contents.add(array, positions.first().copied().unwrap_or_default(), &bytes);
    }
    Some(())
}
