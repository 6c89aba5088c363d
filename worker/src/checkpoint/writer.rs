//! The checkpoint thread: copies this process's share of the state, then hashes and writes it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use lockstep_common::manifest::{RecordPosition, TensorEntry};
use lockstep_common::preprocessing::Preprocessing;
use lockstep_common::world::shares;
use lockstep_host::blobs::{BlobError, BlobStore};
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{CheckpointFailed, CheckpointShare};
use lockstep_tch_ext::memory::cpu_bytes;
use tch::{Device, TchError, Tensor};
use tracing::{debug, warn};

use super::{RankDraft, dtype};
use crate::outbox::Outbox;
use crate::state::State;
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
}

/// Hands checkpoints to the thread that writes them, one at a time.
#[derive(Debug)]
pub struct Writer {
    orders: Option<SyncSender<Staging>>,
    staged: Receiver<()>,
    waiting: bool,
    thread: Option<JoinHandle<()>>,
}

/// A tensor of the share, and where it is copied: memory that is kept from one checkpoint to the next.
struct Item {
    name: String,
    source: Tensor,
    staged: Tensor,
}

impl Writer {
    /// Starts the thread. It writes those of `state`'s tensors that are `process`'s share among `processes` to `store`,
    /// and says so through `outbox`.
    pub fn start(
        state: &State,
        (process, processes): (u32, u32),
        store: BlobStore,
        outbox: Outbox,
    ) -> Result<Self, TchError> {
        let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        let sizes: Vec<u64> = state.tensors().iter().map(|named| bytes(&named.tensor)).collect();
        let share = shares(&sizes, processes);
        let mut items = Vec::new();
        for (named, _) in state.tensors().iter().zip(share).filter(|(_, owner)| *owner == process) {
            let staged = Tensor::f_zeros(named.tensor.size(), (named.tensor.kind(), Device::Cpu))?;
            items.push(Item { name: named.name.clone(), source: named.tensor.shallow_clone(), staged });
        }
        // One order at a time: the next one waits in `stage` until this one's copies are written.
        let (orders, taken) = sync_channel(0);
        let (copied, staged) = channel();
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || work(items, &store, &outbox, &taken, &copied))
            .expect("the system can start a thread");
        Ok(Self { orders: Some(orders), staged, waiting: false, thread: Some(thread) })
    }

    /// Begins a checkpoint of the state as it is. Waits only if the one before it is still being written.
    pub fn stage(&mut self, staging: Staging) {
        self.wait_staged();
        let orders = self.orders.as_ref().expect("present until dropped");
        orders.send(staging).expect("the checkpoint thread ends only with its orders");
        self.waiting = true;
    }

    /// Returns when the state has been copied: it may change again.
    pub fn wait_staged(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.staged.recv().expect("the checkpoint thread answers every order");
        }
    }
}

impl Drop for Writer {
    /// Waits until everything is written.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the checkpoint thread panicked");
        }
    }
}

fn work(mut items: Vec<Item>, store: &BlobStore, outbox: &Outbox, orders: &Receiver<Staging>, staged: &Sender<()>) {
    while let Ok(staging) = orders.recv() {
        let step = staging.step;
        let copied = copy(&mut items);
        // Nobody to tell is a training thread that has stopped; what was copied is written all the same.
        staged.send(()).ok();
        let written = copied.map_err(|error| error.to_string()).and_then(|()| {
            write(&items, staging, store).map_err(|error| match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            })
        });
        outbox.push(match written {
            Ok(share) => {
                debug!(step, tensors = share.tensors.len(), "checkpoint share written");
                let json = serde_json::to_vec(&share).expect("a share has string keys, and its floats are finite");
                Body::Share(CheckpointShare { step, json })
            }
            Err(reason) => {
                warn!(step, "checkpoint failed, the run goes on: {reason}");
                Body::CheckpointFailed(CheckpointFailed { step, reason })
            }
        });
    }
}

fn copy(items: &mut [Item]) -> Result<(), TchError> {
    items.iter_mut().try_for_each(|item| item.staged.f_copy_(&item.source).map(drop))
}

fn write(items: &[Item], mut staging: Staging, store: &BlobStore) -> Result<Share, BlobError> {
    let mut tensors = Vec::with_capacity(items.len());
    for item in items {
        let bytes = cpu_bytes(&item.staged).expect("staged tensors are contiguous, on the cpu");
        tensors.push(TensorEntry {
            name: item.name.clone(),
            dtype: dtype(&item.staged),
            shape: item.staged.size(),
            pieces: store.put_pieces(bytes)?,
        });
    }
    let mut ranks = Vec::with_capacity(staging.ranks.len());
    for draft in std::mem::take(&mut staging.ranks) {
        let mut generators = BTreeMap::new();
        for (device, bytes) in draft.generators {
            generators.insert(device, store.put(&bytes)?);
        }
        ranks.push(lockstep_common::manifest::RankState { generators, ..draft.state });
    }
    store.sync()?;
    let Staging { step, epoch, record, preprocessing, .. } = staging;
    Ok(Share { step, epoch, tensors, ranks, record, preprocessing })
}
