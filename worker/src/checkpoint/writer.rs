//! The checkpoint thread: hashes and writes the copies of this process's share of the state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use lockstep_common::chain;
use lockstep_common::manifest::{Piece, Share, TensorEntry};
use lockstep_common::preprocessing::Preprocessing;
use lockstep_common::world::shares;
use lockstep_data::files::{FilesError, Watch};
use lockstep_host::progress;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{BlobRef, CheckpointFailed, CheckpointShare};
use lockstep_store::{BlobError, BlobStore, PIECE_BYTES};
use lockstep_tch_ext::memory::cpu_bytes;
use lockstep_tch_ext::streams::Mark;
use tch::{Device, Tensor};
use tracing::{debug, warn};

use super::copier::{COPIES, Copier, Copies, Progress, Request, sources};
use super::rank_state::RankDraft;
use super::size;
use super::staging::Staging;
use super::state::{ChangedBy, State, dtype};
use crate::observe::Outbox;

/// The handle to the threads that copy and write checkpoints.
#[derive(Debug)]
pub struct Writer {
    requests: Option<Sender<Request>>,
    progress: Arc<Progress>,
    /// A copy is in progress, or its result has not been read yet.
    copying: bool,
    /// For each request, in order, whether it was carried out.
    written: Receiver<bool>,
    /// Requests whose result has not been read yet.
    open: usize,
    last_step: Option<u64>,
    /// The device of the state.
    device: Device,
    /// Bytes that describe the tensors of the share.
    tensors_described: usize,
    changed: Receiver<FilesError>,
    threads: Vec<JoinHandle<()>>,
}

impl Writer {
    /// Starts the threads. They write the share of `process` (of `processes`) of `state` to `store`, and report each written share to
    /// `outbox`. After they have found a changed file of `watch`, they report no further share.
    pub fn start(
        state: &State,
        (process, processes): (u32, u32),
        store: BlobStore,
        outbox: Outbox,
        watch: &Arc<Watch>,
    ) -> Result<Self, lockstep_tch_ext::Error> {
        let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        let sizes: Vec<u64> = state.tensors().iter().map(|named| bytes(&named.tensor)).collect();
        let owned: Vec<bool> = shares(&sizes, processes).into_iter().map(|owner| owner == process).collect();
        let own = state.tensors().iter().zip(&owned).filter(|(_, owned)| **owned);
        let own = own.map(|(named, _)| (named.name.as_str(), &named.tensor));
        let described =
            |(name, tensor): (&str, &Tensor)| size::tensor(name, dtype(tensor), tensor.size(), bytes(tensor) as usize);
        let tensors_described = own.clone().map(described).sum();
        let first = Copies::new(own)?;
        let device = state.tensors().iter().map(|named| named.tensor.device()).find(|device| *device != Device::Cpu);
        let device = device.unwrap_or(Device::Cpu);
        let sources = sources(state.tensors(), &owned);
        let progress = Arc::new(Progress::new(&sources));
        let (requests, taken) = channel();
        // `stage` waits, so at most `COPIES` copies are in progress.
        let (copied, to_write) = sync_channel(COPIES);
        let (released, free) = channel();
        let (done, written) = channel();
        let (alarm, changed) = channel();
        let copier = Copier {
            sources,
            progress: Arc::clone(&progress),
            device,
            downloader: None,
            requests: taken,
            written: copied,
            free,
            done: done.clone(),
        };
        let watch = Arc::clone(watch);
        let notifier = Notifier { outbox, alarm, done };
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let threads = vec![
            named("copier").spawn(move || copier.work(first)).expect("the system can start a thread"),
            named("checkpoint")
                .spawn(move || work(&store, &watch, &notifier, &to_write, &released))
                .expect("the system can start a thread"),
        ];
        let requests = Some(requests);
        Ok(Self {
            requests,
            progress,
            copying: false,
            written,
            open: 0,
            last_step: None,
            device,
            tensors_described,
            changed,
            threads,
        })
    }

    /// Begins a checkpoint of the current state. A tensor may change as soon as [`Writer::ready`] returns true for the change. Waits only
    /// if the two checkpoints before it are still being written.
    ///
    /// # Errors
    /// `Torch`, if the device failed.
    pub fn stage(&mut self, staging: Staging) -> Result<(), lockstep_tch_ext::Error> {
        self.progress.wait_for(ChangedBy::Update(usize::MAX));
        while self.written.try_recv().is_ok() {
            self.open -= 1;
        }
        if self.open == COPIES {
            let (step, since) = (staging.step, Instant::now());
            warn!(step, "training waits: the last {COPIES} checkpoints are not written yet");
            // The store is slow: this does not count as hanging.
            let _waits = progress::waits();
            self.written.recv().expect("the checkpoint thread answers every request");
            self.open -= 1;
            warn!(step, "training waited {:.1} s for a checkpoint to be written", since.elapsed().as_secs_f64());
        }
        let computed = Mark::new(self.device)?;
        self.last_step = Some(staging.step);
        self.progress.begin();
        let requests = self.requests.as_ref().expect("present until dropped");
        requests
            .send(Request::Write { staging: Box::new(staging), computed })
            .expect("the copier ends only with its requests");
        self.open += 1;
        self.copying = true;
        Ok(())
    }

    /// Whether the state is being copied.
    pub fn is_copying(&self) -> bool {
        self.copying
    }

    /// Waits until all tensors are copied that `change`, or an earlier change of the step, modifies. Returns false if a tensor so far is
    /// not finite; [`Writer::copied`] names it.
    pub fn ready(&self, change: ChangedBy) -> bool {
        !self.copying || self.progress.wait_for(change)
    }

    /// Waits until the state is copied, so that it may change. Returns the names of the parameters and optimizer tensors that are not
    /// finite; if there is one, the checkpoint is not written. Only on the CPU; for a GPU the list is always empty.
    pub fn copied(&mut self) -> Vec<String> {
        if !std::mem::take(&mut self.copying) {
            return Vec::new();
        }
        let fine = self.progress.wait_for(ChangedBy::Update(usize::MAX));
        let found = self.progress.not_finite();
        assert!(fine || !found.is_empty(), "the copier answers every request");
        found
    }

    /// Bytes of a share's description in JSON, with `ranks` ranks like `rank` and with `preprocessing`.
    pub fn described(&self, rank: &RankDraft, ranks: usize, preprocessing: Option<&Preprocessing>) -> usize {
        let rest = size::REST_BYTES + preprocessing.map_or(0, size::described);
        self.tensors_described + ranks * size::rank(rank) + rest
    }

    /// The step of the last checkpoint that was begun.
    pub fn last_step(&self) -> Option<u64> {
        self.last_step
    }

    /// Waits until all checkpoints are written. Returns whether the share of the last one is durable (it was then reported); `None` if
    /// nothing was requested, or the threads have ended.
    pub fn wait_written(&mut self) -> Option<bool> {
        let _waits = progress::waits();
        let mut last = None;
        while self.open > 0 {
            last = Some(self.written.recv().ok()?);
            self.open -= 1;
        }
        last
    }

    /// Writes the last checkpoint again, into new files, and waits for it as [`Writer::wait_written`] does.
    pub fn again(&mut self) -> Option<bool> {
        self.requests.as_ref()?.send(Request::Again).ok()?;
        self.open += 1;
        self.wait_written()
    }

    /// The error for a data file that the thread has found changed; returned once. No share is reported after it.
    pub fn changed(&self) -> Option<FilesError> {
        self.changed.try_recv().ok()
    }
}

/// How the thread reports the result of a checkpoint.
struct Notifier {
    outbox: Outbox,
    alarm: Sender<FilesError>,
    /// For each request, whether it was carried out.
    done: Sender<bool>,
}

impl Drop for Writer {
    /// Waits until everything is written.
    fn drop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!("a checkpoint thread panicked");
            }
        }
    }
}

fn work(
    store: &BlobStore,
    watch: &Watch,
    notifier: &Notifier,
    requests: &Receiver<(Copies, bool)>,
    released: &Sender<Copies>,
) {
    while let Ok((copies, anew)) = requests.recv() {
        let (step, last) = copies.staging.as_ref().map_or((0, false), |staging| (staging.step, staging.last));
        let watched = if last { watch.check_last() } else { watch.check() };
        let written = match (&copies.failed, &copies.staging, watched) {
            // The run ends, and the training thread reports why: no share is reported.
            (_, _, Err(changed)) if changed.is_change_in_training() => {
                released.send(copies).ok();
                notifier.alarm.send(changed).ok();
                notifier.done.send(false).ok();
                continue;
            }
            (Some(error), ..) => Err(error.clone()),
            (.., Err(unknown)) => Err(chain(&unknown)),
            (None, Some(staging), Ok(())) => write(&copies, staging, store, anew).map_err(|error| chain(&error)),
            (None, None, Ok(())) => Err("nothing was copied yet".to_owned()),
        };
        // Released before the result is reported, so that the next request finds the copies.
        released.send(copies).ok();
        let is_written = written.is_ok();
        notifier.outbox.push(match written {
            Ok(share) => {
                debug!(step, "checkpoint share written");
                Body::Share(CheckpointShare { step, blob: Some(BlobRef::from(&share)) })
            }
            Err(reason) => {
                warn!(step, "cannot write a checkpoint: {reason}");
                Body::CheckpointFailed(CheckpointFailed { step, reason })
            }
        });
        notifier.done.send(is_written).ok();
    }
}

/// Writes and syncs the share, and returns the blob that describes it. `anew`: into new files, even if files of the same contents exist.
#[expect(
    unsafe_code,
    reason = "staged tensors are hashed and written in place, because another copy would double the cost"
)]
fn write(copies: &Copies, staging: &Staging, store: &BlobStore, anew: bool) -> Result<Piece, BlobError> {
    let staged = copies.tensors.iter().map(|(name, tensor)| (name, tensor));
    let staged: Vec<_> = staged.chain(staging.steps.iter().map(|steps| (&steps.name, &steps.tensor))).collect();
    let bytes = staged.iter().map(|(_, tensor)| {
        // SAFETY: the copier writes only to copies that it holds, and this thread holds these.
        unsafe { cpu_bytes(tensor) }.expect("staged tensors are contiguous, on the cpu")
    });
    let cut: Vec<Vec<&[u8]>> = bytes.map(|bytes| bytes.chunks(PIECE_BYTES).collect()).collect();
    let mut pieces = store.put_all(&cut.concat(), anew)?.into_iter();
    let entries = staged.iter().zip(&cut).map(|((name, tensor), cut)| TensorEntry {
        name: (*name).clone(),
        dtype: dtype(tensor),
        shape: tensor.size(),
        pieces: pieces.by_ref().take(cut.len()).collect(),
    });
    let tensors = entries.collect();
    let mut ranks = Vec::with_capacity(staging.ranks.len());
    for draft in &staging.ranks {
        let mut generators = BTreeMap::new();
        for (device, bytes) in &draft.generators {
            let piece = if anew { store.put_anew(bytes)? } else { store.put(bytes)? };
            generators.insert(device.clone(), piece);
        }
        ranks.push(lockstep_common::manifest::RankState { generators, ..draft.state.clone() });
    }
    let Staging { step, epoch, .. } = *staging;
    let (record, preprocessing) = (staging.record.clone(), staging.preprocessing.clone());
    let share = Share { step, epoch, tensors, ranks, record, preprocessing }.encode();
    let described = if anew { store.put_anew(&share)? } else { store.put(&share)? };
    store.sync()?;
    Ok(described)
}

#[cfg(test)]
mod tests;
