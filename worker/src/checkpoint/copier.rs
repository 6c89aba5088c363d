//! Copies the state during the next forward and backward pass, in the order in which its tensors will change.
//!
//! ```text
//!  training thread   stage ─ forward, backward ─ update 0 ─ update 1 ─ …    each waits for the copies of the tensors that it changes
//!  copier                buffers ─ tensors of 0 ─ tensors of 1 ─ … ──> writer
//! ```
//!
//! There are two [`Copies`]: one is filled while the other one is written. Their memory is reused; the first is allocated before the first
//! checkpoint.

use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lockstep_common::chain;
use lockstep_tch_ext::streams::Mark;
use lockstep_tch_ext::transfers::Downloader;
use lockstep_tch_ext::{Error, memory};
use tch::{Device, Tensor};

use super::staging::Staging;
use super::state::{ChangedBy, Named};

/// Number of checkpoints in progress at the same time: one is copied while the previous one is written.
pub(super) const COPIES: usize = 2;

/// Bytes to which the start of each copy is aligned: no element type is wider, and no cache line is longer.
const ALIGNMENT: usize = 64;

/// A request of the training thread.
#[derive(Debug)]
pub(super) enum Request {
    /// Copy the state and write it.
    Write {
        /// All that the checkpoint has beside tensors.
        staging: Box<Staging>,
        /// The device has computed the state when it reaches this mark.
        computed: Mark,
    },
    /// Write the newest copy again, into new files.
    Again,
}

/// A copy of this process's share of the state at a checkpoint.
pub(super) struct Copies {
    /// The checkpoint that was copied here last.
    pub(super) staging: Option<Staging>,
    /// Names and copies; views of `memory`.
    pub(super) tensors: Vec<(String, Tensor)>,
    /// The reason why the copy is incomplete.
    pub(super) failed: Option<String>,
    memory: Tensor,
}

/// A tensor of the state.
pub(super) struct Source {
    name: String,
    tensor: Tensor,
    changed_by: ChangedBy,
    /// Its index in [`Copies::tensors`], if it is part of this process's share.
    place: Option<usize>,
}

/// The progress of a copy, for the thread that wants to change the state.
#[derive(Debug)]
pub(super) struct Progress {
    /// The first change of each tensor, in the order in which the tensors are copied.
    order: Vec<ChangedBy>,
    copied: Mutex<Copied>,
    advanced: Condvar,
}

#[derive(Debug, Default)]
struct Copied {
    tensors: usize,
    not_finite: Vec<String>,
    /// The copier has ended.
    ended: bool,
}

/// The thread that copies the state.
pub(super) struct Copier {
    pub(super) sources: Vec<Source>,
    pub(super) progress: Arc<Progress>,
    /// The device of the state.
    pub(super) device: Device,
    /// Present from the first copy on if the device is not the CPU.
    pub(super) downloader: Option<Downloader>,
    pub(super) requests: Receiver<Request>,
    /// Copies for the writer; true: write into new files.
    pub(super) written: SyncSender<(Copies, bool)>,
    /// Copies that the writer has finished with.
    pub(super) free: Receiver<Copies>,
    /// Reports a request that is not carried out, in place of the writer.
    pub(super) done: Sender<bool>,
}

/// The sources of `tensors`, in the order in which they are copied. `owned` marks this process's share.
///
/// On the CPU also the tensors of other shares are read, to check that they are finite: so all processes find the same. On a GPU that would
/// cost too much.
pub(super) fn sources(tensors: &[Named], owned: &[bool]) -> Vec<Source> {
    let mut place = 0..;
    let mut sources = Vec::new();
    for (named, owned) in tensors.iter().zip(owned) {
        if *owned || (must_be_finite(&named.name) && named.tensor.device() == Device::Cpu) {
            let (name, tensor) = (named.name.clone(), named.tensor.shallow_clone());
            let place = owned.then(|| place.next()).flatten();
            sources.push(Source { name, tensor, changed_by: named.changed_by, place });
        }
    }
    sources.sort_by_key(|source| source.changed_by);
    sources
}

impl Copies {
    /// Memory for copies of the named tensors.
    pub(super) fn new<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)> + Clone) -> Result<Self, Error> {
        let mut end = 0_usize;
        let mut place = |tensor: &Tensor| {
            let begin = end.next_multiple_of(ALIGNMENT);
            end = begin + tensor.numel() * tensor.kind().elt_size_in_bytes();
            (begin as i64, (end - begin) as i64)
        };
        let places: Vec<(i64, i64)> = tensors.clone().map(|(_, tensor)| place(tensor)).collect();
        let memory = memory::pages(end)?;
        let copy = |((name, tensor), (begin, bytes)): ((&str, &Tensor), _)| {
            let own = memory.f_narrow(0, begin, bytes)?.f_view_dtype(tensor.kind())?;
            Ok((name.to_owned(), own.f_view(tensor.size().as_slice())?))
        };
        let tensors = tensors.zip(places).map(copy).collect::<Result<_, Error>>()?;
        Ok(Self { staging: None, tensors, failed: None, memory })
    }

    /// Memory of the same size for another copy.
    fn another(&self) -> Result<Self, Error> {
        Self::new(self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))
    }

    /// Writes to the memory, so that the system allocates its pages now and not during the first copy.
    fn touch(&mut self) {
        // If this fails, the copy fails, too, and reports it.
        self.memory.f_fill_(0).ok();
    }
}

impl Progress {
    pub(super) fn new(sources: &[Source]) -> Self {
        let order: Vec<ChangedBy> = sources.iter().map(|source| source.changed_by).collect();
        let copied = Mutex::new(Copied { tensors: order.len(), ..Copied::default() });
        Self { order, copied, advanced: Condvar::new() }
    }

    /// Marks all tensors as not copied.
    pub(super) fn begin(&self) {
        self.lock().tensors = 0;
    }

    /// Waits until all tensors are copied that `change`, or an earlier change of the step, modifies. Returns false if a tensor so far is
    /// not finite, or the copier has ended.
    pub(super) fn wait_for(&self, change: ChangedBy) -> bool {
        let needed = self.order.partition_point(|changed_by| *changed_by <= change);
        let waits = |copied: &mut Copied| copied.tensors < needed && !copied.ended;
        let copied = self.advanced.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        copied.tensors >= needed && copied.not_finite.is_empty()
    }

    /// Names of the tensors that must be finite and were not when they were copied.
    pub(super) fn not_finite(&self) -> Vec<String> {
        self.lock().not_finite.clone()
    }

    fn advance(&self, change: impl FnOnce(&mut Copied)) {
        change(&mut self.lock());
        self.advanced.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Copied> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copier {
    /// Carries out requests until there are no more.
    pub(super) fn work(mut self, mut first: Copies) {
        // Also after a panic, no thread waits for a copy that will not be made.
        let _ended = Ended(Arc::clone(&self.progress));
        first.touch();
        let (mut kept, mut made) = (vec![first], 1);
        while let Ok(request) = self.requests.recv() {
            kept.extend(self.free.try_iter());
            let Some((copies, anew)) = self.taken(&mut kept, request) else { return };
            if !self.progress.not_finite().is_empty() {
                // The run ends, and the training thread reports why: no share is reported.
                kept.push(copies);
                self.done.send(false).ok();
                continue;
            }
            let more = made < COPIES && copies.staging.as_ref().is_some_and(|staging| !staging.last);
            // Without memory for a second copy, the next checkpoint waits for the first one.
            let another = if more { copies.another().ok() } else { None };
            if self.written.send((copies, anew)).is_err() {
                return;
            }
            if let Some(mut another) = another {
                another.touch();
                kept.push(another);
                made += 1;
            }
        }
    }

    /// The copies to write, and whether into new files.
    fn taken(&mut self, kept: &mut Vec<Copies>, request: Request) -> Option<(Copies, bool)> {
        match request {
            Request::Write { staging, computed } => {
                let mut copies = match kept.pop() {
                    Some(copies) => copies,
                    None => self.free.recv().ok()?,
                };
                copies.staging = Some(*staging);
                self.copy(&mut copies, Some(&computed));
                Some((copies, false))
            }
            Request::Again => {
                // The caller has waited until all copies were written, so all of them are in `kept`.
                let step = |copies: &Copies| copies.staging.as_ref().map(|staging| staging.step);
                let newest = (0..kept.len()).max_by_key(|index| step(&kept[*index]))?;
                let mut copies = kept.swap_remove(newest);
                if copies.failed.is_some() {
                    // The training is over, so the state is still that of the checkpoint.
                    self.copy(&mut copies, None);
                }
                Some((copies, true))
            }
        }
    }

    /// Makes this thread's work on a device start after `computed`, and run beside the work of training.
    fn begin(&mut self, computed: Option<&Mark>) -> Result<(), Error> {
        if self.device != Device::Cpu && self.downloader.is_none() {
            self.downloader = Some(Downloader::new(self.device)?);
        }
        computed.map_or(Ok(()), Mark::wait)
    }

    fn copy(&mut self, copies: &mut Copies, computed: Option<&Mark>) {
        let begun = self.begin(computed);
        copies.failed = begun.as_ref().err().map(|error| chain(error));
        for source in &self.sources {
            let into = source.place.map(|place| &mut copies.tensors[place].1);
            let found = match (&begun, into, &mut self.downloader) {
                (Err(_), ..) => Ok(true),
                (Ok(()), Some(into), Some(downloader)) => downloader.copy(&source.tensor, into).map(|()| true),
                (Ok(()), into, _) => memory::copy_finite(&source.tensor, into),
            };
            let not_finite = matches!(found, Ok(false)) && must_be_finite(&source.name);
            if let Err(error) = found {
                copies.failed.get_or_insert_with(|| chain(&error));
            }
            self.progress.advance(|copied| {
                copied.tensors += 1;
                copied.not_finite.extend(not_finite.then(|| source.name.clone()));
            });
        }
    }
}

/// Whether the tensor of this name must be finite. Buffers need not be: masks hold infinities.
pub(super) fn must_be_finite(name: &str) -> bool {
    name.starts_with("model/") || name.starts_with("optimizer/")
}

/// Reports the end of the copier when it is dropped.
struct Ended(Arc<Progress>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.advance(|copied| copied.ended = true);
    }
}
