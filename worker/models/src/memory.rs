//! The memory of tensors: finds different tensors that share elements.

use lockstep_tch_ext::memory::is_plain;
use tch::{Device, Kind, TchError, Tensor};

use super::{ModelError, Parameter};

/// The memory of the elements of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryRegion {
    address: usize,
    size: Vec<i64>,
    stride: Vec<i64>,
    kind: Kind,
}

impl MemoryRegion {
    /// For a plain tensor.
    pub(super) fn of(tensor: &Tensor) -> Result<Self, TchError> {
        let (size, stride, kind) = (tensor.size(), tensor.stride(), tensor.f_kind()?);
        Ok(Self { address: tensor.data_ptr() as usize, size, stride, kind })
    }

    fn is_empty(&self) -> bool {
        self.size.contains(&0)
    }

    /// The addresses from the first byte to behind the last one.
    fn bytes(&self) -> std::ops::Range<usize> {
        self.address..self.address + self.span() as usize * self.kind.elt_size_in_bytes()
    }

    /// The number of elements from the first to the last one, including gaps.
    fn span(&self) -> i64 {
        let steps = self.size.iter().zip(&self.stride).map(|(size, stride)| (size - 1) * stride);
        if self.is_empty() { 0 } else { steps.sum::<i64>() + 1 }
    }

    /// For each element of a memory of `length` elements, how often it is an element of this tensor, which begins at `offset`.
    fn counted(&self, length: i64, offset: i64) -> Result<Tensor, TchError> {
        let elements = Tensor::f_arange(length, (Kind::Int64, Device::Cpu))?;
        let elements = elements.f_as_strided(&self.size, &self.stride, offset)?.f_reshape([-1])?;
        elements.f_bincount(None::<&Tensor>, length)
    }

    /// Whether two of its elements are in the same place (an expanded view).
    pub(super) fn overlaps_itself(&self) -> Result<bool, TchError> {
        let elements: i64 = self.size.iter().product();
        let mut axes: Vec<(i64, i64)> = self.stride.iter().copied().zip(self.size.iter().copied()).collect();
        axes.retain(|(_, size)| *size > 1);
        axes.sort_unstable();
        // Dense tensors are recognised by their strides; for others the elements are counted.
        let dense = axes.iter().try_fold(1, |next, &(stride, size)| (stride == next).then_some(next * size));
        if dense == Some(elements) || self.is_empty() {
            return Ok(false);
        }
        Ok(self.counted(self.span(), 0)?.f_max()?.f_int64_value(&[])? > 1)
    }

    /// Whether it has an element in common with `other`.
    pub(super) fn overlaps(&self, other: &Self) -> Result<bool, TchError> {
        let (own, others) = (self.bytes(), other.bytes());
        if own.is_empty() || others.is_empty() || own.end <= others.start || others.end <= own.start {
            return Ok(false);
        }
        let width = self.kind.elt_size_in_bytes();
        let (from, to) = (own.start.min(others.start), own.end.max(others.end));
        let offset = |bytes: &std::ops::Range<usize>| ((bytes.start - from) / width) as i64;
        if other.kind != self.kind || (own.start - from) % width != 0 || (others.start - from) % width != 0 {
            return Ok(true);
        }
        let length = ((to - from) / width) as i64;
        let both = self.counted(length, offset(&own))?.f_mul(&other.counted(length, offset(&others))?)?;
        Ok(both.f_any()?.f_int64_value(&[])? != 0)
    }
}

/// Rejects tensors that checkpoints cannot store and restore: tensors of a type that tch does not know, sparse tensors, and tensors whose
/// elements share memory. `what` is `parameter` or `buffer`.
pub(super) fn restorable(what: &'static str, name: &str, tensor: &Tensor) -> Result<MemoryRegion, ModelError> {
    let refuse = |reason: &'static str| ModelError::Memory { what, name: name.to_owned(), reason };
    if !is_plain(tensor) {
        return Err(refuse("is sparse, quantized, or a negated or conjugated view: keep a dense tensor of numbers"));
    }
    let Ok(region) = MemoryRegion::of(tensor) else {
        return Err(refuse("has elements of a type that checkpoints do not know: convert it to another type"));
    };
    if matches!(region.kind, Kind::ComplexDouble | Kind::ComplexHalf) {
        return Err(refuse("has complex elements of a width that exports cannot hold: convert it to complex64"));
    }
    if name == "__metadata__" {
        return Err(refuse("has a name that safetensors files reserve: rename it"));
    }
    if region.overlaps_itself()? {
        return Err(refuse(
            "is an expanded view, whose elements share memory: keep a copy (`.clone()` after `.contiguous()`)",
        ));
    }
    Ok(region)
}

/// Rejects different parameters that share memory: each would be trained separately, and would change the other.
///
/// # Errors
/// `Overlap` with both names.
pub fn disjoint(parameters: &[Parameter]) -> Result<(), ModelError> {
    let mut regions: Vec<(MemoryRegion, &str)> = Vec::new();
    for parameter in parameters {
        regions.push((restorable("parameter", &parameter.name, &parameter.tensor)?, &parameter.name));
    }
    // In the order of their addresses, only regions that begin before another one ends can overlap it.
    regions.sort_by_key(|(region, _)| region.address);
    for (index, (region, name)) in regions.iter().enumerate() {
        let end = region.bytes().end;
        for (other, second) in regions[index + 1..].iter().take_while(|(other, _)| other.address < end) {
            if region.overlaps(other)? {
                let named = |name: &str| parameters.iter().position(|parameter| parameter.name == name);
                let (first, second) = if named(name) < named(second) { (name, second) } else { (second, name) };
                return Err(ModelError::Overlap((*first).to_owned(), (*second).to_owned()));
            }
        }
    }
    Ok(())
}
