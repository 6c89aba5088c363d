//! Exchanges CPU tensors through the mesh, without copies: their bytes are sent from and received into their own memory. Hot.
#![expect(unsafe_code, reason = "the borrow of a tensor does not prove that no other tensor has the same memory")]

use lockstep_exchange::Mesh;
use lockstep_host::progress;
use lockstep_tch_ext::memory::{cpu_bytes, cpu_bytes_mut, tensor_over};
use tch::{Kind, Tensor};

use super::{CutHandle, Exchange, ExchangeError};

/// An exchange of CPU tensors through a [`Mesh`].
#[derive(Debug)]
pub struct MeshExchange {
    mesh: Mesh,
    /// Receive buffers of an all-reduce, reused by the next call.
    parts: Vec<Tensor>,
}

impl MeshExchange {
    /// An exchange over `mesh`.
    pub fn new(mesh: Mesh) -> Self {
        Self { mesh, parts: Vec::new() }
    }

    /// Makes one round with plain bytes, as [`Exchange::exchange`] does with tensors.
    pub fn exchange_bytes(&mut self, outgoing: &[&[u8]], incoming: &mut [&mut [u8]]) -> Result<(), ExchangeError> {
        let _waits = progress::waits();
        Ok(self.mesh.exchange(outgoing, incoming)?)
    }
}

impl Exchange for MeshExchange {
    fn process(&self) -> usize {
        self.mesh.process()
    }

    fn processes(&self) -> usize {
        self.mesh.processes()
    }

    fn exchange(&mut self, outgoing: &[Tensor], incoming: &mut [Tensor]) -> Result<(), ExchangeError> {
        let own = self.mesh.process();
        // SAFETY: the caller promises that nobody writes to these tensors until the call returns.
        let bytes = |(process, tensor)| if process == own { Ok(&[][..]) } else { unsafe { cpu_bytes(tensor) } };
        let outgoing = outgoing.iter().enumerate().map(bytes).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: as above; and nobody else uses the memory of the filled tensors: none overlaps another tensor of the call.
        let bytes = |(process, tensor)| if process == own { Ok(&mut [][..]) } else { unsafe { cpu_bytes_mut(tensor) } };
        let mut incoming = incoming.iter_mut().enumerate().map(bytes).collect::<Result<Vec<_>, _>>()?;
        let _waits = progress::waits();
        Ok(self.mesh.exchange(&outgoing, &mut incoming)?)
    }

    fn all_reduce(&mut self, tensor: &mut Tensor) -> Result<(), ExchangeError> {
        let (own, processes) = (self.process(), self.processes());
        let fits = |part: &Tensor| part.size() == tensor.size() && part.kind() == tensor.kind();
        if self.parts.len() != processes || !self.parts.iter().all(fits) {
            self.parts = (0..processes).map(|_| tensor.f_zeros_like()).collect::<Result<_, _>>()?;
        }
        let outgoing: Vec<Tensor> = (0..processes).map(|_| tensor.shallow_clone()).collect();
        let mut parts = std::mem::take(&mut self.parts);
        let sent = self.exchange(&outgoing, &mut parts);
        self.parts = parts;
        sent?;
        self.parts[own].f_copy_(tensor)?;
        tensor.f_copy_(&self.parts[0])?;
        for part in &self.parts[1..] {
            let _ = tensor.f_add_(part)?;
        }
        Ok(())
    }

    fn windows(&mut self, elements: i64, kind: Kind) -> Result<Option<Vec<Tensor>>, ExchangeError> {
        let Some(windows) = self.mesh.windows(elements as usize * kind.elt_size_in_bytes())? else { return Ok(None) };
        // SAFETY: the mesh keeps no reference into the windows that it returns. The owner of the tensors reads those of other processes
        // only between exchanges, as the trait requires.
        let tensors = windows.into_iter().map(|window| unsafe { tensor_over(window, kind) });
        Ok(Some(tensors.collect::<Result<_, _>>()?))
    }

    fn note(&mut self, word: u64) {
        self.mesh.note(word);
    }

    fn notes(&mut self) -> Result<Vec<u64>, ExchangeError> {
        Ok(self.mesh.notes().collect())
    }

    fn cut_handle(&self) -> CutHandle {
        let handle = self.mesh.cut_handle();
        CutHandle::new(move || handle.cut())
    }
}
