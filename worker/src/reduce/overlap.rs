//! Reduction during the backward pass. As soon as all gradients of a bucket are computed, a separate thread exchanges and adds it.
//! Additions and exchanges have the same order as in a reduction after the backward pass.
//!
//! ```text
//! backward pass:     layer 4 | layer 3 | layer 2 | layer 1 |
//! reduction thread:          | bucket 0 ....| bucket 1 ....| bucket 2 .. |
//! ```

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use lockstep_tch_ext::Error;
use lockstep_tch_ext::float_mode;
use lockstep_tch_ext::hooks::{Hook, on_grad};
use lockstep_tch_ext::streams::{Mark, leave_default};
use tch::{Device, Tensor};

use super::finish::Finish;
use super::used::{Used, join};
use super::{CutHandle, Exchange, ExchangeError};

/// The tensors that the backward pass fills, and their positions.
#[derive(Debug)]
pub(super) struct Parts {
    /// For each parameter the tensor for its gradient, and its range in the flat tensor.
    pub(super) places: Vec<(Tensor, Range<i64>)>,
    /// The range of each bucket; the bucket that is complete first comes first.
    pub(super) buckets: Vec<Range<i64>>,
    /// For each bucket the sample of its gradients, and the tensor that it is copied to.
    pub(super) samples: Vec<(Tensor, Tensor)>,
    /// The flags of the parameters that got a gradient; part of the last bucket.
    pub(super) used: Used,
}

/// The reduction thread, and the gradient hooks that pass buckets to it.
pub(super) struct Overlap {
    arriving: Arc<Mutex<Arriving>>,
    done: Receiver<(InFlight, Result<Mark, ExchangeError>)>,
    thread: Option<JoinHandle<()>>,
    /// Cuts the exchange; present while the thread has the exchange.
    cut: Option<CutHandle>,
    _hooks: Vec<Hook>,
}

/// What the thread owns while it reduces.
struct InFlight {
    exchange: Box<dyn Exchange>,
    buckets: Vec<Finish>,
}

enum Work {
    Begin(InFlight),
    /// The next bucket is complete at this mark.
    Bucket(Mark),
}

/// A backward pass in progress.
struct Arriving {
    parts: Parts,
    device: Device,
    /// `None` once the thread should end.
    work: Option<Sender<Work>>,
    /// Whether this backward pass is reduced: hooks run in every backward pass.
    wanted: bool,
    arrived: Vec<bool>,
    /// For each parameter whether it got a gradient.
    used: Vec<u8>,
    /// For each parameter the buckets that contain a part of it.
    buckets_of: Vec<Range<usize>>,
    /// For each bucket the number of parameters with a part in it.
    needed: Vec<usize>,
    /// For each bucket the number of these parameters that have not arrived yet.
    missing: Vec<usize>,
    /// Number of buckets that were passed to the thread, from the first one on.
    begun: usize,
    failure: Option<Error>,
}

impl Overlap {
    /// Starts the thread, and adds a hook to each of `parameters`.
    pub(super) fn new(parameters: &[Tensor], parts: Parts, device: Device) -> Result<Self, Error> {
        let (work, received) = channel();
        let (finished, done) = channel();
        let thread = thread::Builder::new().name("reduction".to_owned());
        let thread = thread.spawn(move || {
            float_mode::set_default();
            let mut unheard = Some(leave_default(device));
            while let Ok(work) = received.recv() {
                // A bucket that arrives here belongs to a pass whose exchange has failed.
                if let Work::Begin(mut in_flight) = work {
                    let reduced = match unheard.take() {
                        Some(Err(error)) => Err(error.into()),
                        _ => reduce(&mut in_flight, &received, device),
                    };
                    if finished.send((in_flight, reduced)).is_err() {
                        return;
                    }
                }
            }
        });
        let thread = thread.map_err(|error| Error::Torch(format!("cannot start the reduction thread: {error}")))?;
        let count = parts.places.len();
        let buckets_of: Vec<_> = parts.places.iter().map(|(_, range)| buckets_of(range, &parts.buckets)).collect();
        let holds = |bucket: usize| buckets_of.iter().filter(|of| of.contains(&bucket)).count();
        let needed: Vec<_> = (0..parts.buckets.len()).map(holds).collect();
        let arriving = Arc::new(Mutex::new(Arriving {
            parts,
            device,
            work: Some(work),
            wanted: false,
            arrived: vec![false; count],
            used: vec![0; count],
            buckets_of,
            missing: needed.clone(),
            needed,
            begun: 0,
            failure: None,
        }));
        let hook = |(index, parameter): (usize, &Tensor)| {
            let arriving = Arc::clone(&arriving);
            on_grad(parameter, Box::new(move |gradient| lock(&arriving).take(index, gradient)))
        };
        let hooks = parameters.iter().enumerate().map(hook).collect::<Result<_, _>>()?;
        Ok(Self { arriving, done, thread: Some(thread), cut: None, _hooks: hooks })
    }

    /// Runs the backward pass of `loss` by `parameters`, and begins to reduce its gradients. [`Overlap::finish`] returns exchange and
    /// buckets.
    pub(super) fn backward(
        &mut self,
        loss: &Tensor,
        parameters: &[Tensor],
        exchange: Box<dyn Exchange>,
        buckets: Vec<Finish>,
    ) -> Result<(), Error> {
        let cut = exchange.cut_handle();
        lock(&self.arriving).begin(InFlight { exchange, buckets });
        self.cut = Some(cut);
        Tensor::f_run_backward(&[loss], parameters, false, false)?;
        lock(&self.arriving).complete()
    }

    /// Waits until all buckets are reduced.
    pub(super) fn finish(&mut self) -> (Box<dyn Exchange>, Vec<Finish>, Result<(), ExchangeError>) {
        let (in_flight, reduced) = self.done.recv().expect("the thread answers whatever becomes of a bucket");
        self.cut = None;
        let reduced = reduced.and_then(|mark| Ok(mark.wait()?));
        (in_flight.exchange, in_flight.buckets, reduced)
    }

    /// Sets the flags in `all` of the parameters that got a gradient in the last backward pass.
    pub(super) fn join_used(&self, all: &mut [u8]) {
        join(all, &lock(&self.arriving).used);
    }

    /// Whether [`Overlap::backward`] was called and [`Overlap::finish`] was not.
    pub(super) fn under_way(&self) -> bool {
        self.cut.is_some()
    }
}

impl Drop for Overlap {
    fn drop(&mut self) {
        // The thread may wait for peers that wait for buckets of this process, which will not come.
        if let Some(cut) = &self.cut {
            cut.cut();
        }
        lock(&self.arriving).work = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl std::fmt::Debug for Overlap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Overlap").field("under_way", &self.under_way()).finish_non_exhaustive()
    }
}

fn reduce(in_flight: &mut InFlight, work: &Receiver<Work>, device: Device) -> Result<Mark, ExchangeError> {
    for bucket in &mut in_flight.buckets {
        // The backward pass has failed, and so the run fails.
        let Ok(Work::Bucket(complete)) = work.recv() else { return Err(ExchangeError::Cut) };
        complete.wait()?;
        bucket.run(Some(in_flight.exchange.as_mut()))?;
    }
    Ok(Mark::new(device)?)
}

impl Arriving {
    fn begin(&mut self, in_flight: InFlight) {
        self.send(Work::Begin(in_flight));
        self.wanted = true;
        self.begun = 0;
        self.arrived.fill(false);
        self.missing.copy_from_slice(&self.needed);
    }

    /// Called by a hook with the gradient of the parameter `index`.
    fn take(&mut self, index: usize, gradient: &Tensor) {
        if self.wanted && gradient.defined() && self.failure.is_none() {
            self.failure = self.place(index, Some(gradient)).err();
        }
    }

    /// To be called after the backward pass: parameters without a gradient get zeros.
    fn complete(&mut self) -> Result<(), Error> {
        self.wanted = false;
        for index in 0..self.arrived.len() {
            if !self.arrived[index] && self.failure.is_none() {
                self.place(index, None)?;
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn place(&mut self, index: usize, gradient: Option<&Tensor>) -> Result<(), Error> {
        let (place, _) = &mut self.parts.places[index];
        self.used[index] = u8::from(gradient.is_some());
        match gradient {
            Some(gradient) => place.f_copy_(gradient)?,
            None => drop(place.f_zero_()?),
        }
        self.arrived[index] = true;
        for missing in &mut self.missing[self.buckets_of[index].clone()] {
            *missing -= 1;
        }
        // All processes pass on buckets in the same order, whatever the order of their gradients.
        while self.begun < self.missing.len() && self.missing[self.begun] == 0 {
            if self.begun + 1 == self.missing.len() {
                // Before the last bucket all parameters have arrived, because each has a part in some bucket.
                self.parts.used.note(&self.used)?;
            }
            let (from, into) = &mut self.parts.samples[self.begun];
            into.f_copy_(from)?;
            self.send(Work::Bucket(Mark::new(self.device)?));
            self.begun += 1;
        }
        Ok(())
    }

    fn send(&self, work: Work) {
        // If the thread has ended, the wait for its answer fails.
        if let Some(sender) = &self.work {
            sender.send(work).ok();
        }
    }
}

/// The `buckets` (in descending order) that overlap `range`. An empty parameter belongs to the last bucket, which has its flag.
fn buckets_of(range: &Range<i64>, buckets: &[Range<i64>]) -> Range<usize> {
    if range.is_empty() {
        return buckets.len() - 1..buckets.len();
    }
    let first = buckets.partition_point(|bucket| bucket.start >= range.end);
    let end = buckets.partition_point(|bucket| bucket.end > range.start);
    first..end
}

fn lock(arriving: &Mutex<Arriving>) -> MutexGuard<'_, Arriving> {
    arriving.lock().unwrap_or_else(PoisonError::into_inner)
}
