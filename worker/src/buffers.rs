//! Buffers (batch-norm statistics and the like) follow rank 0's, whichever process hosts it.
//!
//! Every rank's forward begins from the buffers as they were before the step; what rank 0's made of them is what all
//! processes have after it. So the number of processes changes nothing.

use tch::{Kind, TchError, Tensor};

use crate::exchange::{Exchange, ExchangeError};

/// A model's buffers, as bytes: any mixture of element types.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The buffers' own memory.
    live: Vec<Tensor>,
    /// Each buffer's place in `before`, `after`.
    before: Vec<Tensor>,
    after: Vec<Tensor>,
    /// All of `after`, as it is sent.
    packed: Tensor,
}

impl Buffers {
    /// `None` if the model has no buffers.
    pub(crate) fn new(buffers: &[(String, Tensor)]) -> Result<Option<Self>, TchError> {
        let Some((_, first)) = buffers.first() else { return Ok(None) };
        let bytes = |tensor: &Tensor| tensor.numel() as i64 * tensor.kind().elt_size_in_bytes() as i64;
        let total = buffers.iter().map(|(_, tensor)| bytes(tensor)).sum::<i64>();
        let (before, packed) = (
            Tensor::f_zeros([total], (Kind::Uint8, first.device()))?,
            Tensor::f_zeros([total], (Kind::Uint8, first.device()))?,
        );
        let mut own = Self { live: Vec::new(), before: Vec::new(), after: Vec::new(), packed };
        let mut offset = 0;
        for (_, tensor) in buffers {
            let length = bytes(tensor);
            own.live.push(tensor.f_view([-1])?.f_view_dtype(Kind::Uint8)?);
            own.before.push(before.f_narrow(0, offset, length)?);
            own.after.push(own.packed.f_narrow(0, offset, length)?);
            offset += length;
        }
        Ok(Some(own))
    }

    /// Before the first rank's forward.
    pub(crate) fn begin_step(&mut self) -> Result<(), TchError> {
        copy(&mut self.before, &self.live)
    }

    /// After a rank's forward: rank 0's is kept, and the next rank begins where this one did.
    pub(crate) fn end_forward(&mut self, rank: u32) -> Result<(), TchError> {
        if rank == 0 {
            copy(&mut self.after, &self.live)?;
        }
        copy(&mut self.live, &self.before)
    }

    /// As they were when the step began: for whoever makes it again.
    pub(crate) fn restore(&mut self) -> Result<(), TchError> {
        copy(&mut self.live, &self.before)
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
        Ok(copy(&mut self.live, &self.after)?)
    }
}

fn copy(to: &mut [Tensor], from: &[Tensor]) -> Result<(), TchError> {
    for (to, from) in to.iter_mut().zip(from) {
        to.f_copy_(from)?;
    }
    Ok(())
}
