//! Flags that show which parameters a rank's loss depends on. They are part of the reduced tensor, so that all processes get the flags of
//! all ranks without a further round. Hot.
//!
//! A parameter is used in a step if any rank used it. Ranks that did not use it count as zeros in the mean, as with PyTorch's
//! `DistributedDataParallel(find_unused_parameters=True)`.

use tch::{TchError, Tensor};

use super::Layout;

/// The flags of one rank.
#[derive(Debug)]
pub(super) struct Used {
    /// One element for each parameter, at the head of the rank's row.
    pub(super) place: Tensor,
    /// The last flags, and the same as a tensor on the device of `place`: they rarely change from step to step.
    last: Vec<u8>,
    values: Tensor,
}

impl Used {
    /// Flags at the head of `row`, which has the layout `layout`.
    pub(super) fn new(layout: &Layout, row: &Tensor) -> Result<Self, TchError> {
        let count = layout.offsets().len() - 1;
        let place = row.f_narrow(0, 0, count as i64)?;
        let values = Tensor::f_ones([count as i64], (place.kind(), place.device()))?;
        Ok(Self { place, last: vec![1; count], values })
    }

    /// Another handle to the same flags.
    pub(super) fn share(&self) -> Self {
        let (place, values) = (self.place.shallow_clone(), self.values.copy());
        Self { place, last: self.last.clone(), values }
    }

    /// Writes the flags.
    pub(super) fn note(&mut self, used: &[u8]) -> Result<(), TchError> {
        if self.last != used {
            self.values.f_copy_(&Tensor::f_from_slice(used)?)?;
            self.last.copy_from_slice(used);
        }
        self.place.f_copy_(&self.values)
    }
}

/// Sets the flags in `all` that are set in `more`.
pub(super) fn join(all: &mut [u8], more: &[u8]) {
    for (all, more) in all.iter_mut().zip(more) {
        *all |= more;
    }
}
