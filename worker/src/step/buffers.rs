//! Buffers (batch-norm statistics and the like) follow rank 0's, whichever process hosts it.
//!
//! Every rank's forward begins from the buffers as they were before the step; what rank 0's made of them is what all
//! processes have after it. So the number of processes changes nothing.

use lockstep_models::{ModelError, same_form};
use tch::{Kind, TchError, Tensor};

use crate::reduce::{Exchange, ExchangeError};

/// Where each copy begins: no element type is wider.
const ALIGNMENT: i64 = 16;

/// A model's buffers and copies of them: any mixture of element types, shapes and strides.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The model's own tensors.
    live: Vec<(String, Tensor)>,
    before: Vec<Tensor>,
    /// As they were before the last step but this one, if somebody may step back.
    earlier: Option<Vec<Tensor>>,
    /// Each buffer's place in `packed`.
    after: Vec<Tensor>,
    /// All of `after` as bytes, as it is sent.
    packed: Tensor,
}

impl Buffers {
    /// `None` if the model has no buffers; `steps_back`: [`Buffers::step_back`] may be called.
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

    /// Before the first rank's forward.
    pub(crate) fn begin_step(&mut self) -> Result<(), TchError> {
        if let Some(earlier) = &mut self.earlier {
            std::mem::swap(earlier, &mut self.before);
        }
        keep(&mut self.before, &self.live)
    }

    /// In the middle of a step: [`Buffers::restore`] is to the beginning of the step before it.
    pub(crate) fn step_back(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            std::mem::swap(earlier, &mut self.before);
        }
    }

    /// After a rank's forward: rank 0's is kept, and the next rank begins where this one did.
    pub(crate) fn end_forward(&mut self, rank: u32) -> Result<(), ModelError> {
        for ((name, live), before) in self.live.iter().zip(&self.before) {
            same_form(name, before, live)?;
        }
        if rank == 0 {
            keep(&mut self.after, &self.live)?;
        }
        Ok(restore(&mut self.live, &self.before)?)
    }

    /// As they were when the step began: for whoever makes it again.
    pub(crate) fn restore(&mut self) -> Result<(), TchError> {
        restore(&mut self.live, &self.before)
    }

    /// After the last rank's forward: everybody takes rank 0's.
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
