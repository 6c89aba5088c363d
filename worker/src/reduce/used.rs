//! Which parameters a rank's loss depends on: a part of what is reduced, so that all processes learn it of all ranks
//! without a round of its own. Hot.
//!
//! A parameter is used in a step if any rank used it. Ranks that did not count as zeros in the mean, as with PyTorch's
//! `DistributedDataParallel(find_unused_parameters=True)`.

use tch::{TchError, Tensor};

use super::Layout;

/// Where one rank's answer goes.
#[derive(Debug)]
pub(super) struct Used {
    /// One element for each parameter, at the head of the rank's row.
    pub(super) place: Tensor,
    /// The last answer, and the same as a tensor beside `place`: it is nearly always the next one's too.
    last: Vec<u8>,
    values: Tensor,
}

impl Used {
    /// At the head of `row`, which is laid out as `layout` says.
    pub(super) fn new(layout: &Layout, row: &Tensor) -> Result<Self, TchError> {
        let count = layout.offsets().len() - 1;
        let place = row.f_narrow(0, 0, count as i64)?;
        let values = Tensor::f_ones([count as i64], (place.kind(), place.device()))?;
        Ok(Self { place, last: vec![1; count], values })
    }

    /// Another one for the same place.
    pub(super) fn share(&self) -> Self {
        let (place, values) = (self.place.shallow_clone(), self.values.copy());
        Self { place, last: self.last.clone(), values }
    }

    /// Writes the answer.
    pub(super) fn note(&mut self, used: &[u8]) -> Result<(), TchError> {
        if self.last != used {
            self.values.f_copy_(&Tensor::f_from_slice(used)?)?;
            self.last.copy_from_slice(used);
        }
        self.place.f_copy_(&self.values)
    }
}

/// Notes in `all` what is noted in `more`.
pub(super) fn join(all: &mut [u8], more: &[u8]) {
    for (all, more) in all.iter_mut().zip(more) {
        *all |= more;
    }
}
