//! The copy of a state, made beside the next forward and backward pass in the order in which its tensors change.
//!
//! ```text
//!  training thread   stage ─ forward, backward ─ update 0 ─ update 1 ─ …    each waits for the copies of what it changes
//!  copier                buffers ─ tensors of 0 ─ tensors of 1 ─ … ──> writer
//! ```
//!
//! There are two [`Copies`]: one is filled while the other is written. Their memory is kept, and there before the first checkpoint.

use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lockstep_common::chain;
use lockstep_tch_ext::streams::Mark;
use lockstep_tch_ext::transfers::Downloader;
use lockstep_tch_ext::{Error, memory};
use tch::{Device, Tensor};

use super::staging::Staging;
use super::state::{ChangedBy, Named};

/// Checkpoints that are under way together: one is copied while the one before it is written.
pub(super) const COPIES: usize = 2;

/// Where each tensor's copy begins: no element type is wider, and no line of a cache is longer.
const ALIGNMENT: usize = 64;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Request {
    /// Copy the state and write it.
    Write {
        /// What else is said of it.
        staging: Box<Staging>,
        /// Where the state's device has computed it.
        computed: Mark,
    },
    /// Write what was copied last again, into new files.
    Again,
}

/// A share of the state as it was at a checkpoint.
pub(super) struct Copies {
    /// The newest checkpoint that was copied to here.
    pub(super) staging: Option<Staging>,
    /// By name.
    pub(super) tensors: Vec<(String, Tensor)>,
    /// Why the copy is not whole.
    pub(super) failed: Option<String>,
    memory: Tensor,
}

/// A tensor of the state.
pub(super) struct Source {
    name: String,
    tensor: Tensor,
    changed_by: ChangedBy,
    /// Its place in [`Copies::tensors`], if it is of this process's share.
    place: Option<usize>,
}

/// How far the copy is, for whoever wants to change the state.
#[derive(Debug)]
pub(super) struct Progress {
    /// By whom the tensors are changed, in the order in which they are copied.
    order: Vec<ChangedBy>,
    copied: Mutex<Copied>,
    advanced: Condvar,
}

#[derive(Debug, Default)]
struct Copied {
    tensors: usize,
    not_finite: Vec<String>,
    /// Nobody copies any more.
    ended: bool,
}

/// The thread that copies.
pub(super) struct Copier {
    pub(super) sources: Vec<Source>,
    pub(super) progress: Arc<Progress>,
    /// Where the state is.
    pub(super) device: Device,
    /// If that is not the CPU.
    pub(super) downloader: Option<Downloader>,
    pub(super) requests: Receiver<Request>,
    /// To the writer; true: into new files.
    pub(super) written: SyncSender<(Copies, bool)>,
    /// Copies that are written.
    pub(super) free: Receiver<Copies>,
    /// As the writer says it: a checkpoint that is not written.
    pub(super) done: Sender<bool>,
}

/// The sources of `tensors`, in the order in which they are to be copied; `owned` are this process's share.
///
/// The others are only looked at: all processes find the same. On another device than the CPU that would cost too much.
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
    /// Room for copies of tensors, given by name.
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

    /// The same room once more.
    fn another(&self) -> Result<Self, Error> {
        Self::new(self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))
    }

    /// Takes the memory from the system: the first copy would wait for each of its pages.
    fn touch(&mut self) {
        // What cannot be written now fails at the copy, which says so.
        self.memory.f_fill_(0).ok();
    }
}

impl Progress {
    pub(super) fn new(sources: &[Source]) -> Self {
        let order: Vec<ChangedBy> = sources.iter().map(|source| source.changed_by).collect();
        let copied = Mutex::new(Copied { tensors: order.len(), ..Copied::default() });
        Self { order, copied, advanced: Condvar::new() }
    }

    /// All tensors are to be copied.
    pub(super) fn begin(&self) {
        self.lock().tensors = 0;
    }

    /// Returns when all tensors are copied that `change`, or a change before it, touches; false if one of the tensors so far is
    /// not finite, or nobody copies any more.
    pub(super) fn wait_for(&self, change: ChangedBy) -> bool {
        let needed = self.order.partition_point(|changed_by| *changed_by <= change);
        let waits = |copied: &mut Copied| copied.tensors < needed && !copied.ended;
        let copied = self.advanced.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        copied.tensors >= needed && copied.not_finite.is_empty()
    }

    /// Those that must be finite and were not when they were copied.
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
        // Also after a panic nobody waits for what will not come.
        let _ended = Ended(Arc::clone(&self.progress));
        first.touch();
        let (mut kept, mut made) = (vec![first], 1);
        while let Ok(request) = self.requests.recv() {
            kept.extend(self.free.try_iter());
            let Some((copies, anew)) = self.taken(&mut kept, request) else { return };
            if !self.progress.not_finite().is_empty() {
                // The run ends, and the training thread says why: no share is said.
                kept.push(copies);
                self.done.send(false).ok();
                continue;
            }
            let more = made < COPIES && copies.staging.as_ref().is_some_and(|staging| !staging.last);
            // One that cannot be had is done without: the next checkpoint waits.
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

    /// The copies that are to be written, and whether into new files.
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
                // Whoever asks has waited for all that was written.
                let step = |copies: &Copies| copies.staging.as_ref().map(|staging| staging.step);
                let newest = (0..kept.len()).max_by_key(|index| step(&kept[*index]))?;
                let mut copies = kept.swap_remove(newest);
                if copies.failed.is_some() {
                    // The state is still what it was: nothing is trained any more.
                    self.copy(&mut copies, None);
                }
                Some((copies, true))
            }
        }
    }

    /// What this thread gives a device to do comes behind `computed`, and beside what training gives it.
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

/// Whether a run ends whose tensor of this name is not finite: buffers may hold an infinity, as masks do.
pub(super) fn must_be_finite(name: &str) -> bool {
    name.starts_with("model/") || name.starts_with("optimizer/")
}

/// Says that nobody copies any more.
struct Ended(Arc<Progress>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.advance(|copied| copied.ended = true);
    }
}
