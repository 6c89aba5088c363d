//! The checkpoint thread: copies this process's share of the state, then hashes and writes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use lockstep_common::chain;
use lockstep_common::manifest::{Piece, RecordPosition, TensorEntry};
use lockstep_common::preprocessing::Preprocessing;
use lockstep_common::world::shares;
use lockstep_host::blobs::{BlobError, BlobStore, PIECE_BYTES};
use lockstep_host::data::{DataHashError, Watch};
use lockstep_host::progress;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{BlobRef, CheckpointFailed, CheckpointShare};
use lockstep_tch_ext::memory::cpu_bytes;
use tch::{Device, TchError, Tensor};
use tracing::{debug, warn};

use super::rank_state::RankDraft;
use super::size;
use super::state::{Named, State, dtype};
use crate::observe::Outbox;
use lockstep_common::manifest::Share;

/// What a checkpoint holds beside tensors.
#[derive(Debug)]
pub struct Staging {
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The ranks that this process hosts.
    pub ranks: Vec<RankDraft>,
    /// From process 0.
    pub record: Option<RecordPosition>,
    /// From process 0, unless a program reads the data itself.
    pub preprocessing: Option<Preprocessing>,
    /// From process 0, if there is one: [`State::steps`].
    pub steps: Option<Named>,
    /// Whether it is the run's last.
    pub last: bool,
}

/// Hands checkpoints to the thread that writes them, one at a time.
#[derive(Debug)]
pub struct Writer {
    requests: Option<SyncSender<Request>>,
    staged: Receiver<()>,
    waiting: bool,
    /// Whether each request was carried out.
    written: Receiver<bool>,
    /// Requests whose outcome is not taken yet.
    open: usize,
    last_step: Option<u64>,
    /// Bytes that describe the tensors of the share.
    tensors_described: usize,
    changed: Receiver<DataHashError>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is to do.
#[derive(Debug)]
enum Request {
    /// Copy the state and write it.
    Write(Box<Staging>),
    /// Write what was copied last again, into new files.
    Again,
}

/// A tensor of the share, and where it is copied: memory that is kept from one checkpoint to the next.
struct Item {
    name: String,
    source: Tensor,
    staged: Tensor,
}

impl Writer {
    /// Starts the thread. It writes those of `state`'s tensors that are `process`'s share among `processes` to `store`,
    /// and says so through `outbox`; but no share once it has found a file of `watch` changed.
    pub fn start(
        state: &State,
        (process, processes): (u32, u32),
        store: BlobStore,
        outbox: Outbox,
        watch: &Arc<Watch>,
    ) -> Result<Self, TchError> {
        let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        let sizes: Vec<u64> = state.tensors().iter().map(|named| bytes(&named.tensor)).collect();
        let share = shares(&sizes, processes);
        let (mut items, mut tensors_described) = (Vec::new(), 0);
        for (named, _) in state.tensors().iter().zip(share).filter(|(_, owner)| *owner == process) {
            let staged = Tensor::f_zeros(named.tensor.size(), (named.tensor.kind(), Device::Cpu))?;
            let bytes = bytes(&named.tensor) as usize;
            tensors_described += size::tensor(&named.name, dtype(&staged), staged.size(), bytes);
            items.push(Item { name: named.name.clone(), source: named.tensor.shallow_clone(), staged });
        }
        // One request at a time: the next one waits in `stage` until this one's copies are written.
        let (requests, taken) = sync_channel(0);
        let (copied, staged) = channel();
        let (done, written) = channel();
        let (alarm, changed) = channel();
        let watch = Arc::clone(watch);
        let notifier = Notifier { outbox, alarm, done };
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || work(items, &store, &watch, &notifier, &taken, &copied))
            .expect("the system can start a thread");
        let (requests, thread) = (Some(requests), Some(thread));
        Ok(Self {
            requests,
            staged,
            waiting: false,
            written,
            open: 0,
            last_step: None,
            tensors_described,
            changed,
            thread,
        })
    }

    /// Begins a checkpoint of the state as it is. Waits only if the one before it is still being written.
    pub fn stage(&mut self, staging: Staging) {
        self.wait_staged();
        self.last_step = Some(staging.step);
        let requests = self.requests.as_ref().expect("present until dropped");
        // For a store that is slow with the one before.
        let _waits = progress::waits();
        requests.send(Request::Write(Box::new(staging))).expect("the checkpoint thread ends only with its requests");
        self.open += 1;
        self.waiting = true;
    }

    /// Bytes of a share's description in JSON: with so many ranks like `rank`, and with `preprocessing`.
    pub fn described(&self, rank: &RankDraft, ranks: usize, preprocessing: Option<&Preprocessing>) -> usize {
        let rest = size::REST_BYTES + preprocessing.map_or(0, size::described);
        self.tensors_described + ranks * size::rank(rank) + rest
    }

    /// The step of the last checkpoint that was begun.
    pub fn last_step(&self) -> Option<u64> {
        self.last_step
    }

    /// Waits until the last checkpoint is written; whether its share is durable, which was said then.
    ///
    /// None: nobody writes any more.
    pub fn wait_written(&mut self) -> Option<bool> {
        let _waits = progress::waits();
        let mut last = None;
        while self.open > 0 {
            last = Some(self.written.recv().ok()?);
            self.open -= 1;
        }
        last
    }

    /// Writes the last checkpoint again, into new files, and waits for it; as [`Writer::wait_written`].
    pub fn again(&mut self) -> Option<bool> {
        self.requests.as_ref()?.send(Request::Again).ok()?;
        self.open += 1;
        self.wait_written()
    }

    /// Returns when the state has been copied: it may change again.
    pub fn wait_staged(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.staged.recv().expect("the checkpoint thread answers every request");
        }
    }

    /// The data file that the thread has found changed, if it has. It says no share since.
    pub fn changed(&self) -> Option<DataHashError> {
        self.changed.try_recv().ok()
    }
}

/// Where the thread says how a checkpoint went.
struct Notifier {
    outbox: Outbox,
    alarm: Sender<DataHashError>,
    /// Whether each request was carried out.
    done: Sender<bool>,
}

impl Drop for Writer {
    /// Waits until everything is written.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the checkpoint thread panicked");
        }
    }
}

fn work(
    mut items: Vec<Item>,
    store: &BlobStore,
    watch: &Watch,
    notifier: &Notifier,
    requests: &Receiver<Request>,
    staged: &Sender<()>,
) {
    let mut last: Option<Staging> = None;
    let mut copied = Ok(());
    while let Ok(request) = requests.recv() {
        let anew = matches!(request, Request::Again);
        match request {
            Request::Write(staging) => {
                copied = copy(&mut items);
                last = Some(*staging);
                // Nobody to tell is a training thread that has stopped; what was copied is written all the same.
                staged.send(()).ok();
            }
            // The state is still what it was: nothing is trained any more.
            Request::Again if copied.is_err() => copied = copy(&mut items),
            Request::Again => {}
        }
        let step = last.as_ref().map_or(0, |staging| staging.step);
        let watched =
            if last.as_ref().is_some_and(|staging| staging.last) { watch.check_last() } else { watch.check() };
        let written = match (&copied, &last, watched) {
            // The run ends, and the training thread says why: no share is said.
            (_, _, Err(changed)) if changed.is_change_in_training() => {
                notifier.alarm.send(changed).ok();
                notifier.done.send(false).ok();
                continue;
            }
            (Err(error), ..) => Err(chain(error)),
            (.., Err(unknown)) => Err(chain(&unknown)),
            (Ok(()), Some(staging), Ok(())) => write(&items, staging, store, anew).map_err(|error| chain(&error)),
            (Ok(()), None, Ok(())) => Err("nothing was copied yet".to_owned()),
        };
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

fn copy(items: &mut [Item]) -> Result<(), TchError> {
    items.iter_mut().try_for_each(|item| item.staged.f_copy_(&item.source).map(drop))
}

/// Writes and syncs the share; `anew`: into new files, whatever is there. The blob that describes it.
#[expect(
    unsafe_code,
    reason = "staged tensors are hashed and written where they lie: a copy of them would cost as much again"
)]
fn write(items: &[Item], staging: &Staging, store: &BlobStore, anew: bool) -> Result<Piece, BlobError> {
    let staged = items.iter().map(|item| (&item.name, &item.staged));
    let staged: Vec<_> = staged.chain(staging.steps.iter().map(|steps| (&steps.name, &steps.tensor))).collect();
    let bytes = staged.iter().map(|(_, tensor)| {
        // SAFETY: staged tensors are copies of this thread's own, and only its next `copy` writes to them.
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
