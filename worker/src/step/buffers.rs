//! Buffers (for example batch-norm statistics) are those of rank 0 in all processes.
//!
//! The forward pass of every rank begins with the buffers as they were before the step. After the step all processes have the buffers of
//! rank 0. So the number of processes does not change the result.

use lockstep_models::{ModelError, same_form};
use tch::{Kind, TchError, Tensor};

use crate::reduce::{Exchange, ExchangeError};

/// Bytes to which the start of each copy is aligned: no element type is wider.
const ALIGNMENT: i64 = 16;

/// A model's buffers, of any element types, shapes and strides, and copies of them.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The model's own tensors.
    live: Vec<(String, Tensor)>,
    before: Vec<Tensor>,
    /// The buffers as they were before the previous step; present only if [`Buffers::step_back`] may be called.
    earlier: Option<Vec<Tensor>>,
    /// The buffers after rank 0's forward pass: views into `packed`.
    after: Vec<Tensor>,
    /// All of `after` as one run of bytes, which rank 0's process sends to the others.
    packed: Tensor,
}

impl Buffers {
    /// `None` if the model has no buffers. `steps_back` says whether [`Buffers::step_back`] may be called later.
    pub(crate) fn new(buffers: &[(String, Tensor)], steps_back: bool) -> Result<Option<Self>, TchError> {
        let Some((_, first)) = buffers.first() else { return Ok(None) };
        let bytes = |tensor: &Tensor| tensor.numel() as i64 * tensor.kind().elt_size_in_bytes() as i64;
        let places: Vec<i64> =
            buffers.iter().map(|(_, tensor)| ((bytes(tensor) + ALIGNMENT - 1) / ALIGNMENT) * ALIGNMENT).collect();
        let packed = Tensor::f_zeros([places.iter().sum::<i64>()], (Kind::Uint8, first.device()))?;
        let mut own = Self { live: Vec::new(), before: Vec::new(), earlier: None, after: Vec::new(), packed };
        let mut offset = 0;
        for ((name, tensor), place) in buffers.iter().zip(places) {
            let after = own.packed.f_narrow(0, offset, bytes(tensor))?.f_view_dtype(tensor.kind())?;
            own.live.push((name.clone(), tensor.shallow_clone()));
            own.before.push(Tensor::f_zeros(tensor.size(), (tensor.kind(), tensor.device()))?);
            own.after.push(after.f_view(tensor.size().as_slice())?);
            offset += place;
        }
        if steps_back {
            own.earlier = Some(own.before.iter().map(Tensor::f_zeros_like).collect::<Result<_, _>>()?);
        }
        Ok(Some(own))
    }

    /// Saves the buffers. To be called before the first rank's forward pass.
    pub(crate) fn begin_step(&mut self) -> Result<(), TchError> {
        if let Some(earlier) = &mut self.earlier {
            std::mem::swap(earlier, &mut self.before);
        }
        keep(&mut self.before, &self.live)
    }

    /// From now on [`Buffers::restore`] goes back to the beginning of the previous step. To be called in the middle of a step.
    pub(crate) fn step_back(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            std::mem::swap(earlier, &mut self.before);
        }
    }

    /// Saves the buffers if `rank` is 0, and restores them for the next rank. To be called after each rank's forward pass.
    pub(crate) fn end_forward(&mut self, rank: u32) -> Result<(), ModelError> {
        for ((name, live), before) in self.live.iter().zip(&self.before) {
            same_form(name, before, live)?;
        }
        if rank == 0 {
            keep(&mut self.after, &self.live)?;
        }
        Ok(restore(&mut self.live, &self.before)?)
    }

    /// Restores the buffers to the beginning of the step, so that the step can be re-run.
    pub(crate) fn restore(&mut self) -> Result<(), TchError> {
        restore(&mut self.live, &self.before)
    }

    /// Gives every process the buffers of rank 0. To be called after the last rank's forward pass, by all processes together.
    pub(crate) fn end_step(&mut self, exchange: Option<&mut dyn Exchange>) -> Result<(), ExchangeError> {
        if let Some(exchange) = exchange {
            let (own, processes) = (exchange.process(), exchange.processes());
            let empty = self.packed.f_narrow(0, 0, 0)?;
            let place = |there: bool| if there { self.packed.shallow_clone() } else { empty.shallow_clone() };
            let outgoing: Vec<Tensor> = (0..processes).map(|_| place(own == 0)).collect();
            let mut incoming: Vec<Tensor> = (0..processes).map(|from| place(from == 0 && own != 0)).collect();
            exchange.exchange(&outgoing, &mut incoming)?;
        }
        Ok(restore(&mut self.live, &self.after)?)
    }
}

fn keep(to: &mut [Tensor], live: &[(String, Tensor)]) -> Result<(), TchError> {
    for (to, (_, from)) in to.iter_mut().zip(live) {
        to.f_copy_(&from.f_detach()?)?;
    }
    Ok(())
}

fn restore(live: &mut [(String, Tensor)], from: &[Tensor]) -> Result<(), TchError> {
    tch::no_grad(|| {
        for ((_, to), from) in live.iter_mut().zip(from) {
            to.f_copy_(from)?;
        }
        Ok(())
    })
}
