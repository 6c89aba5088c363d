//! Commits checkpoints: opens every blob that a written one names, off the event loop, and proposes what it found.
//!
//! A run's checkpoints are opened one after another, in the order of their steps; those of several runs at once. What is
//! written is read off the state, so a leader that dies in between loses nothing: the next one opens the blobs again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lockstep_common::manifest::{Manifest, Piece, Share};
use lockstep_common::{Digest, RunId, chain};
use lockstep_core::command::{Commit, CommitFailed};
use lockstep_core::state::Written;
use lockstep_core::{ClusterState, Command};
use lockstep_store::{BlobError, BlobStore};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::identity::{Identity, IdentityError};
use crate::node::{CallError, Handle, now_ms};

/// Between two looks for a blob that is not seen.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two marks of the store while runs go on.
const MARK_PAUSE: Duration = Duration::from_mins(1);

/// Pause before a proposal that the log did not take is repeated.
const AGAIN: Duration = Duration::from_secs(1);

/// Which checkpoint: run, generation and step.
type CheckpointOf = (RunId, u64, u64);

/// Opens what is written, until the coordinator ends.
#[derive(Clone, Debug)]
pub struct Committer {
    handle: Handle,
    store: Arc<BlobStore>,
    identity: Identity,
    patience: Duration,
}

impl Committer {
    /// For checkpoints whose blobs are in `store`, which must stay the one of `identity`. A blob that is not seen there is looked for
    /// again for `patience`: a file system over the network may show it late.
    pub fn new(handle: Handle, store: Arc<BlobStore>, identity: Identity, patience: Duration) -> Self {
        Self { handle, store, identity, patience }
    }

    /// Runs until the event loop ends.
    pub async fn run(self) -> Result<(), CallError> {
        let mut changes = self.handle.changes();
        let (mut tasks, mut opening) = (JoinSet::new(), BTreeMap::new());
        // Runs with checkpoints that copies of the store may lack and still have its mark.
        let (mut unmarked, mut marked) = (BTreeSet::new(), Instant::now());
        loop {
            let runs = unmarked.clone();
            let look = move |state: &ClusterState| (state.written(), runs.iter().any(|run| has_ended(state, run)));
            let (written, ended) = self.handle.read_first(look).await?;
            for written in written {
                if let Entry::Vacant(entry) = opening.entry(written) {
                    let (committer, written) = (self.clone(), entry.key().clone());
                    let task = tasks.spawn(async move {
                        match committer.commit(&written).await {
                            Ok(is_marked) => (!is_marked).then_some(written.0),
                            Err(error) => {
                                warn!(run = %written.0, step = written.2, %error, "cannot commit a checkpoint yet");
                                sleep(AGAIN).await;
                                None
                            }
                        }
                    });
                    entry.insert(task.id());
                }
            }
            if ended || (!unmarked.is_empty() && marked.elapsed() > MARK_PAUSE) {
                match self.blocking(Identity::mark).await {
                    Ok(()) => (unmarked, marked) = (BTreeSet::new(), Instant::now()),
                    Err(reason) => {
                        warn!("the store has no new mark: an older copy of it may be taken for it: {reason}");
                        sleep(AGAIN).await;
                    }
                }
            }
            tokio::select! {
                changed = changes.next() => changed?,
                // If it is still written, other shares have come meanwhile, or the log did not take the proposal.
                Some(done) = tasks.join_next_with_id() => {
                    let done = match done {
                        Ok((id, run)) => {
                            unmarked.extend(run);
                            id
                        }
                        Err(panicked) => {
                            error!("opening a checkpoint panicked, and is tried again: {panicked}");
                            sleep(AGAIN).await;
                            panicked.id()
                        }
                    };
                    opening.retain(|_, task| *task != done);
                }
            }
        }
    }

    /// Does `work` with the identity, off the loop; in words why it could not be done.
    async fn blocking(&self, work: fn(&Identity) -> Result<(), IdentityError>) -> Result<(), String> {
        let identity = self.identity.clone();
        let done = spawn_blocking(move || work(&identity)).await;
        done.map_err(|_| "the store panicked".to_owned())?.map_err(|error| chain(&error))
    }

    /// Opens the blobs of one checkpoint, and proposes what follows from it. Whether no copy of the store that lacks it has its mark.
    async fn commit(&self, of: &CheckpointOf) -> Result<bool, CallError> {
        let (run, generation, step) = of.clone();
        let look = move |state: &ClusterState| state.written_at(&run, generation, step);
        let Some(written) = self.handle.read_first(look).await? else { return Ok(true) };
        let written = Arc::new(written);
        let opened = self.open_blobs(&written).await;
        let (run, at_ms) = (of.0.clone(), now_ms());
        let is_marked = written.is_last || opened.is_err();
        let command = match opened {
            Ok(Opened { checkpoint, manifest, epoch, state }) => {
                info!(%run, step, checkpoint = %checkpoint.short(), "commits a checkpoint");
                let shares = written.shares_digest();
                Command::Commit(Commit { at_ms, run, generation, step, checkpoint, manifest, epoch, state, shares })
            }
            Err(reason) => {
                warn!(%run, step, reason, "rejects a checkpoint");
                Command::CommitFailed(CommitFailed { at_ms, run, generation, step, reason })
            }
        };
        self.handle.propose(command).await?.outcome().await.map(|_| is_marked)
    }

    /// Opens every blob that `written` names, and writes its manifest; those of a run's last checkpoint are read, too.
    async fn open_blobs(&self, written: &Arc<Written>) -> Result<Opened, String> {
        let deadline = Instant::now() + self.patience;
        let opened = loop {
            let checked = self.blocking(Identity::check).await.map_err(Unopened::Late);
            let opened = match checked {
                Ok(()) => self.try_open(Arc::clone(written)).await,
                Err(unopened) => Err(unopened),
            };
            match opened {
                Err(Unopened::Late(_)) if Instant::now() < deadline => sleep(PAUSE).await,
                Err(Unopened::Late(reason) | Unopened::Never(reason)) => return Err(reason),
                Ok(opened) => break opened,
            }
        };
        // Still: it may have been mounted for a moment only.
        self.blocking(Identity::check).await?;
        if written.is_last {
            // A copy of the store that was made before lacks this checkpoint.
            self.blocking(Identity::mark).await?;
        }
        Ok(opened)
    }

    async fn try_open(&self, written: Arc<Written>) -> Result<Opened, Unopened> {
        let store = Arc::clone(&self.store);
        let opened = spawn_blocking(move || open(&store, &written)).await;
        opened.unwrap_or_else(|_| Err(Unopened::Never("the store panicked".to_owned())))
    }
}

/// A checkpoint all of whose blobs were opened, and its manifest written.
struct Opened {
    checkpoint: Digest,
    manifest: Piece,
    epoch: u64,
    state: Digest,
}

/// Why a checkpoint is not opened, in words.
enum Unopened {
    /// It may be seen a little later: the store may lie on a network.
    Late(String),
    /// It will not be.
    Never(String),
}

/// Reads the shares of `written`, opens what they name, and writes the manifest that they make.
fn open(store: &BlobStore, written: &Written) -> Result<Opened, Unopened> {
    let unseen = |error: BlobError| {
        let words = format!("the coordinator cannot open what was written: {}", chain(&error));
        match error {
            BlobError::Missing { .. } | BlobError::Truncated { .. } => Unopened::Late(words),
            _ => Unopened::Never(words),
        }
    };
    let mut shares = BTreeMap::new();
    for (&process, blob) in &written.shares {
        let share = Share::decode(&store.get(blob).map_err(unseen)?);
        let no_share = |error| Unopened::Never(format!("the share of process {process} is none: {}", chain(&error)));
        shares.insert(process, share.map_err(no_share)?);
    }
    let earlier = written.earlier.as_ref().and_then(|earlier| match store.get(earlier) {
        Ok(bytes) => Manifest::decode(&bytes).ok(),
        Err(error) => {
            warn!("a checkpoint is not compared with the one before, which cannot be read: {}", chain(&error));
            None
        }
    });
    let manifest = written.assemble(&shares, earlier.as_ref()).map_err(Unopened::Never)?;
    let pieces = pieces(&manifest).map_err(Unopened::Never)?;
    pieces.iter().try_for_each(|piece| store.check(piece)).map_err(unseen)?;
    if written.is_last {
        let unread =
            |error| Unopened::Never(format!("the coordinator cannot read what was written: {}", chain(&error)));
        pieces.iter().try_for_each(|piece| store.verify(piece)).map_err(unread)?;
    }
    let bytes = manifest.encode();
    let unwritten = |error| Unopened::Never(format!("the coordinator cannot write the manifest: {}", chain(&error)));
    let piece = store.put(&bytes).and_then(|piece| store.sync().map(|()| piece)).map_err(unwritten)?;
    Ok(Opened { checkpoint: Manifest::id(&bytes), manifest: piece, epoch: manifest.epoch, state: manifest.state })
}

/// Every blob that `manifest` names, once.
fn pieces(manifest: &Manifest) -> Result<Vec<Piece>, String> {
    let mut pieces: BTreeMap<Digest, Piece> = BTreeMap::new();
    let tensors = manifest.tensors.iter().flat_map(|entry| &entry.pieces);
    for piece in tensors.chain(manifest.ranks.iter().flat_map(|rank| rank.generators.values())) {
        if let Some(before) = pieces.insert(piece.digest, piece.clone())
            && before.bytes != piece.bytes
        {
            let Piece { digest, bytes } = piece;
            return Err(format!("blob `{digest}` has {bytes} bytes in one share and {} in another", before.bytes));
        }
    }
    Ok(pieces.into_values().collect())
}

/// Whether a run makes no more checkpoints.
fn has_ended(state: &ClusterState, run: &RunId) -> bool {
    state.run(run).is_none_or(|run| run.state.status.is_final())
}
