//! The interface of all exchanges.

use std::sync::Arc;

use tch::{Device, Kind, TchError, Tensor};

use super::ExchangeError;

/// One process's end of the exchange between all processes of a generation.
///
/// Calls are matched by their order, so every process must make the same calls in the same order. After an error every later call fails.
pub trait Exchange: Send {
    /// Index of this process, from 0.
    fn process(&self) -> usize;

    /// Number of processes.
    fn processes(&self) -> usize;

    /// Makes one round: sends `outgoing[p]` to process `p`, and fills `incoming[p]` with the tensor that process `p` sends.
    ///
    /// Both lists have an entry for each process; the entry of this process is ignored. Tensors must be contiguous, of one element type,
    /// and on the exchange's device. Lengths may differ between pairs and may be 0, but both ends of a pair must use the same length.
    /// Until the call returns, no other thread may write to the sent tensors, or read or write the filled ones, and no filled tensor may
    /// overlap another tensor of the call.
    fn exchange(&mut self, outgoing: &[Tensor], incoming: &mut [Tensor]) -> Result<(), ExchangeError>;

    /// Sends `mine` to all processes, and returns the tensors of all processes, by process index. Shape and element type must be the same
    /// in all processes.
    fn gather(&mut self, mine: Tensor) -> Result<Vec<Tensor>, ExchangeError> {
        let outgoing: Vec<Tensor> = (0..self.processes()).map(|_| mine.shallow_clone()).collect();
        let empty = outgoing.iter().map(|_| mine.f_zeros_like());
        let mut incoming = empty.collect::<Result<Vec<_>, TchError>>()?;
        self.exchange(&outgoing, &mut incoming)?;
        incoming[self.process()] = mine;
        Ok(incoming)
    }

    /// Gathers `items` items of `width` numbers each, in order. Process `i mod processes` has item `i`; `own` are the items of this
    /// process.
    fn gather_items(
        &mut self,
        mut own: Vec<f64>,
        items: usize,
        width: usize,
        device: Device,
    ) -> Result<Vec<f64>, ExchangeError> {
        let processes = self.processes();
        own.resize(items.div_ceil(processes) * width, 0.0);
        let received = self.gather(Tensor::f_from_slice(&own)?.f_to(device)?)?;
        let received = received.iter().map(Vec::<f64>::try_from).collect::<Result<Vec<_>, TchError>>()?;
        let item = |index: usize| &received[index % processes][index / processes * width..][..width];
        Ok((0..items).flat_map(item).copied().collect())
    }

    /// Replaces `tensor` by the sum over all processes. The shape must be the same in all processes. The order of additions depends on
    /// the back end and on the number of processes.
    fn all_reduce(&mut self, tensor: &mut Tensor) -> Result<(), ExchangeError>;

    /// Creates shared memory of `elements` elements for this process, set to zero. Returns a 1-D tensor for each process, by process
    /// index: this process may write to its own one, and read the others. Lengths may differ. `None` in all processes if memory cannot be
    /// shared between all of them.
    ///
    /// A process sees what another one wrote before an exchange after it has finished that exchange. Writing to another process's tensor
    /// kills the process.
    fn windows(&mut self, elements: i64, kind: Kind) -> Result<Option<Vec<Tensor>>, ExchangeError> {
        let _ = (elements, kind);
        Ok(None)
    }

    /// Sets a word that is sent to all other processes with the following calls.
    fn note(&mut self, word: u64);

    /// Returns the words of the other processes. Between [`Exchange::note`] and this call, every process must have exchanged something
    /// with all others. All processes call it together.
    fn notes(&mut self) -> Result<Vec<u64>, ExchangeError>;

    /// A handle that cuts the exchange from any thread.
    fn cut_handle(&self) -> CutHandle;
}

/// Cuts an exchange at once, for all processes: every call that waits in it fails, here and in the peers.
#[derive(Clone)]
pub struct CutHandle(Arc<dyn Fn() + Send + Sync>);

impl CutHandle {
    pub(super) fn new(cut: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(cut))
    }

    /// Cuts the exchange. Further calls have no effect.
    pub fn cut(&self) {
        (self.0)();
    }
}
