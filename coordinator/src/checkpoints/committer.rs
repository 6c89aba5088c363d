//! Commits checkpoints: opens every blob of a written checkpoint, outside of the event loop, and then proposes to commit or to reject it.
//!
//! The checkpoints of one run are opened one after another, in the order of their steps; those of different runs in parallel. The written
//! checkpoints are part of the state, so after a crash the next start opens their blobs again.

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

/// Pause between two attempts to open a missing blob.
const PAUSE: Duration = Duration::from_millis(500);

/// Time between two marks of the store while runs are active.
const MARK_PAUSE: Duration = Duration::from_mins(1);

/// Pause before a failed proposal or mark is retried.
const AGAIN: Duration = Duration::from_secs(1);

/// A checkpoint: run, generation and step.
type CheckpointOf = (RunId, u64, u64);

/// The task that commits checkpoints.
#[derive(Clone, Debug)]
pub struct Committer {
    handle: Handle,
    store: Arc<BlobStore>,
    identity: Identity,
    patience: Duration,
}

impl Committer {
    /// Commits checkpoints with blobs in `store`, as long as `identity` confirms the store.
    ///
    /// A missing blob is retried for `patience`, because a network file system may show a new file late.
    pub fn new(handle: Handle, store: Arc<BlobStore>, identity: Identity, patience: Duration) -> Self {
        Self { handle, store, identity, patience }
    }

    /// Runs until the event loop ends.
    ///
    /// # Errors
    /// `Stopping` once the event loop has ended.
    pub async fn run(self) -> Result<(), CallError> {
        let mut changes = self.handle.changes();
        let (mut tasks, mut opening) = (JoinSet::new(), BTreeMap::new());
        // Runs with checkpoints since the last mark: a copy of the store may lack these checkpoints and still have the current mark.
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
                                warn!(run = %written.0, step = written.2, %error, "cannot propose a checkpoint: retrying");
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
                        warn!("cannot mark the store, so an older copy of it is not detected: retrying: {reason}");
                        sleep(AGAIN).await;
                    }
                }
            }
            tokio::select! {
                changed = changes.next() => changed?,
                // If the checkpoint is still uncommitted, its shares have changed or the proposal failed: the next turn opens it again.
                Some(done) = tasks.join_next_with_id() => {
                    let done = match done {
                        Ok((id, run)) => {
                            unmarked.extend(run);
                            id
                        }
                        Err(panicked) => {
                            error!("opening a checkpoint panicked: retrying: {panicked}");
                            sleep(AGAIN).await;
                            panicked.id()
                        }
                    };
                    opening.retain(|_, task| *task != done);
                }
            }
        }
    }

    /// Runs `work` on a blocking thread. The error is text.
    async fn blocking(&self, work: fn(&Identity) -> Result<(), IdentityError>) -> Result<(), String> {
        let identity = self.identity.clone();
        let done = spawn_blocking(move || work(&identity)).await;
        done.map_err(|_| "an operation on the store panicked; see the coordinator's log".to_owned())?
            .map_err(|error| chain(&error))
    }

    /// Opens the blobs of one checkpoint, and proposes to commit or to reject it. Returns false if the store needs a new mark afterwards.
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
                info!(%run, step, checkpoint = %checkpoint.short(), "committing a checkpoint");
                let shares = written.shares_digest();
                Command::Commit(Commit { at_ms, run, generation, step, checkpoint, manifest, epoch, state, shares })
            }
            Err(reason) => {
                warn!(%run, step, reason, "rejecting a checkpoint");
                Command::CommitFailed(CommitFailed { at_ms, run, generation, step, reason })
            }
        };
        self.handle.propose(command).await?.outcome().await.map(|_| is_marked)
    }

    /// Opens every blob of `written`, and writes its manifest. Of a run's last checkpoint, also reads the blobs and compares their digests.
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
        // Again, because the store may have been unmounted meanwhile.
        self.blocking(Identity::check).await?;
        if written.is_last {
            // An earlier copy of the store lacks this checkpoint.
            self.blocking(Identity::mark).await?;
        }
        Ok(opened)
    }

    async fn try_open(&self, written: Arc<Written>) -> Result<Opened, Unopened> {
        let store = Arc::clone(&self.store);
        let opened = spawn_blocking(move || open(&store, &written)).await;
        opened.unwrap_or_else(|_| {
            Err(Unopened::Never("an operation on the store panicked; see the coordinator's log".to_owned()))
        })
    }
}

/// A checkpoint with all blobs opened and its manifest written.
struct Opened {
    checkpoint: Digest,
    manifest: Piece,
    epoch: u64,
    state: Digest,
}

/// Why a checkpoint cannot be opened, as text for the user.
enum Unopened {
    /// A retry may succeed, because a network file system may show a new file late.
    Late(String),
    /// A retry would fail, too.
    Never(String),
}

/// Reads the shares of `written`, opens all their blobs, and assembles and writes the manifest.
fn open(store: &BlobStore, written: &Written) -> Result<Opened, Unopened> {
    let unseen = |error: BlobError| {
        let words = format!("the coordinator cannot open the checkpoint: {}", chain(&error));
        match error {
            BlobError::Missing { .. } | BlobError::Truncated { .. } => Unopened::Late(words),
            _ => Unopened::Never(words),
        }
    };
    let mut shares = BTreeMap::new();
    for (&process, blob) in &written.shares {
        let share = Share::decode(&store.get(blob).map_err(unseen)?);
        let no_share = |error| Unopened::Never(format!("the share of process {process} is invalid: {}", chain(&error)));
        shares.insert(process, share.map_err(no_share)?);
    }
    let earlier = written.earlier.as_ref().and_then(|earlier| match store.get(earlier) {
        Ok(bytes) => Manifest::decode(&bytes).ok(),
        Err(error) => {
            warn!("not comparing a checkpoint with the previous one, which cannot be read: {}", chain(&error));
            None
        }
    });
    let manifest = written.assemble(&shares, earlier.as_ref()).map_err(Unopened::Never)?;
    let pieces = pieces(&manifest).map_err(Unopened::Never)?;
    pieces.iter().try_for_each(|piece| store.check(piece)).map_err(unseen)?;
    if written.is_last {
        let unread = |error| Unopened::Never(format!("the coordinator cannot read the checkpoint: {}", chain(&error)));
        pieces.iter().try_for_each(|piece| store.verify(piece)).map_err(unread)?;
    }
    let bytes = manifest.encode();
    let unwritten = |error| Unopened::Never(format!("the coordinator cannot write the manifest: {}", chain(&error)));
    let piece = store.put(&bytes).and_then(|piece| store.sync().map(|()| piece)).map_err(unwritten)?;
    Ok(Opened { checkpoint: Manifest::id(&bytes), manifest: piece, epoch: manifest.epoch, state: manifest.state })
}

/// All blobs of `manifest`, each once.
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

/// Whether a run has ended or is unknown, so that it writes no more checkpoints.
fn has_ended(state: &ClusterState, run: &RunId) -> bool {
    state.run(run).is_none_or(|run| run.state.status.is_final())
}
