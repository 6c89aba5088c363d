//! The interface of all exchanges.

use std::sync::Arc;

use tch::{Device, Kind, TchError, Tensor};

use super::ExchangeError;

/// One process's end of the exchange between all processes of a generation.
///
/// Calls are matched by order: every process makes the same calls. After an error every later call fails.
pub trait Exchange: Send {
    /// This process's number.
    fn process(&self) -> usize;

    /// How many processes there are.
    fn processes(&self) -> usize;

    /// One duplex round: sends `outgoing[p]` to every process `p` and fills `incoming[p]` from it.
    ///
    /// Contiguous tensors of one dtype on the exchange's device; both ends of a pair know the lengths, which may differ
    /// and may be 0. This process's own places are ignored. Until it returns, nobody else touches the memory of what is filled, nor
    /// writes to what is sent: no tensor of `incoming` overlaps another of the call.
    fn exchange(&mut self, outgoing: &[Tensor], incoming: &mut [Tensor]) -> Result<(), ExchangeError>;

    /// Gives `mine`, of one shape and dtype in all processes, to all: everybody's, by process.
    fn gather(&mut self, mine: Tensor) -> Result<Vec<Tensor>, ExchangeError> {
        let outgoing: Vec<Tensor> = (0..self.processes()).map(|_| mine.shallow_clone()).collect();
        let empty = outgoing.iter().map(|_| mine.f_zeros_like());
        let mut incoming = empty.collect::<Result<Vec<_>, TchError>>()?;
        self.exchange(&outgoing, &mut incoming)?;
        incoming[self.process()] = mine;
        Ok(incoming)
    }

    /// All of `items` numbers of `width` each, in order, of which item `i` is process `i mod processes`'s: `own` are this
    /// process's.
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

    /// Replaces `tensor`, of one shape in all processes, by the sum over processes, in an order that only the back end
    /// and the number of processes decide.
    fn all_reduce(&mut self, tensor: &mut Tensor) -> Result<(), ExchangeError>;

    /// Memory of `elements` elements for this process, zeros, that all processes see where it lies: by process a 1-D tensor,
    /// this one's to write, the others' to read. Lengths may differ. `None` for all if for some it cannot be.
    ///
    /// What a process writes before it begins an exchange is seen by whoever has finished that exchange. Writing to
    /// another's tensor kills the process.
    fn windows(&mut self, elements: i64, kind: Kind) -> Result<Option<Vec<Tensor>>, ExchangeError> {
        let _ = (elements, kind);
        Ok(None)
    }

    /// A word for all other processes: it goes to them with the calls that follow.
    fn note(&mut self, word: u64);

    /// The word of each other process. Between its call of [`Exchange::note`] and this one every process has exchanged
    /// something with all others; all of them call it together.
    fn notes(&mut self) -> Result<Vec<u64>, ExchangeError>;

    /// Cuts the exchange from any thread.
    fn cut_handle(&self) -> CutHandle;
}

/// Cuts one exchange, at once and for everybody: what waits in it fails, here and at the peers.
#[derive(Clone)]
pub struct CutHandle(Arc<dyn Fn() + Send + Sync>);

impl CutHandle {
    pub(super) fn new(cut: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(cut))
    }

    /// Cuts. A second call changes nothing.
    pub fn cut(&self) {
        (self.0)();
    }
}
