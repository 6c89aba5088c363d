//! The bytes of a batch, where its data set does not say what it was made of.

use lockstep_common::contents::Contents;
use lockstep_tch_ext::memory::bytes_of;
use tch::{Device, Tensor};

use super::dataset::Batch;

/// The bytes of `batch`, of the samples at `positions`: row by row, so that they are the same however ranks share them.
/// From a GPU they are copied.
///
/// `None` for a tensor without plain bytes, as a sparse one.
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
