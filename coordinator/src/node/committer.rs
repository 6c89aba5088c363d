//! Commits checkpoints: opens every blob that a written one names, off the event loop, and proposes what it found.
//!
//! A run's checkpoints are opened one after another, in the order of their steps; those of several runs at once. What is
//! written is read off the state, so a leader that dies in between loses nothing: the next one opens the blobs again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockstep_common::manifest::{Manifest, Piece};
use lockstep_common::{Digest, RunId, chain};
use lockstep_core::command::{Commit, CommitFailed};
use lockstep_core::{ClusterState, Command};
use lockstep_host::blobs::{BlobError, BlobStore};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::handle::{Handle, now_ms};
use super::request::CallError;
use crate::identity::{Identity, IdentityError};

/// Between two looks for a blob that is not seen.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two marks of the store while runs go on.
const MARK_PAUSE: Duration = Duration::from_mins(1);

/// Pause before a proposal that the log did not take is repeated.
const AGAIN: Duration = Duration::from_secs(1);

/// A written checkpoint: run, generation and step.
type Written = (RunId, u64, u64);

/// Opens what is written, until the coordinator ends.
#[derive(Clone, Debug)]
pub struct Committer {
    handle: Handle,
    store: Arc<BlobStore>,
    identity: Identity,
    patience: Duration,
}

impl Committer {
    /// For checkpoints whose blobs are in the store at `store`, which must stay the one of `identity`. A blob that is not seen
    /// there is looked for again for `patience`: a file system over the network may show it late.
    pub fn open(handle: Handle, store: &Path, identity: Identity, patience: Duration) -> Result<Self, BlobError> {
        Ok(Self { handle, store: Arc::new(BlobStore::open(store)?), identity, patience })
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
    async fn commit(&self, written: &Written) -> Result<bool, CallError> {
        let (run, generation, step) = written.clone();
        let of = written.clone();
        let look = move |state: &ClusterState| {
            let is_last = state.run(&of.0).is_some_and(|run| run.last_step() == of.2);
            state.assembled(&of.0, of.1, of.2).map(|assembled| (assembled, is_last))
        };
        let Some((assembled, is_last)) = self.handle.read_first(look).await? else { return Ok(true) };
        let opened = match assembled {
            Ok(manifest) => self.find(&manifest, is_last).await.map(|()| Manifest::id(&manifest.encode())),
            Err(reason) => Err(reason),
        };
        let at_ms = now_ms();
        let is_marked = is_last || opened.is_err();
        let command = match opened {
            Ok(checkpoint) => {
                info!(%run, step, checkpoint = %checkpoint.short(), "commits a checkpoint");
                Command::Commit(Commit { at_ms, run, generation, step, checkpoint })
            }
            Err(reason) => {
                warn!(%run, step, reason, "rejects a checkpoint");
                Command::CommitFailed(CommitFailed { at_ms, run, generation, step, reason })
            }
        };
        self.handle.propose(command).await?.outcome().await.map(|_| is_marked)
    }

    /// Opens every blob that `manifest` names; those of a run's last checkpoint are read, too.
    async fn find(&self, manifest: &Manifest, is_last: bool) -> Result<(), String> {
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
        let pieces: Arc<Vec<Piece>> = Arc::new(pieces.into_values().collect());
        let deadline = Instant::now() + self.patience;
        let all = |check: fn(&BlobStore, &Piece) -> Result<(), BlobError>| {
            let (store, pieces) = (Arc::clone(&self.store), Arc::clone(&pieces));
            spawn_blocking(move || pieces.iter().try_for_each(|piece| check(&store, piece)))
        };
        let panicked = |_| "the store panicked".to_owned();
        loop {
            if let Err(reason) = self.blocking(Identity::check).await {
                if Instant::now() < deadline {
                    sleep(PAUSE).await;
                    continue;
                }
                return Err(reason);
            }
            match all(BlobStore::check).await.map_err(panicked)? {
                Ok(()) => break,
                Err(BlobError::Missing { .. } | BlobError::Truncated { .. }) if Instant::now() < deadline => {
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    return Err(format!("the coordinator cannot open what was written: {}", chain(&error)));
                }
            }
        }
        if is_last {
            let read = all(|store, piece| store.verify(piece).map(drop)).await.map_err(panicked)?;
            read.map_err(|error| format!("the coordinator cannot read what was written: {}", chain(&error)))?;
        }
        // Still: it may have been mounted for a moment only.
        self.blocking(Identity::check).await?;
        if is_last {
            // A copy of the store that was made before lacks this checkpoint.
            self.blocking(Identity::mark).await?;
        }
        Ok(())
    }
}

/// Whether a run makes no more checkpoints.
fn has_ended(state: &ClusterState, run: &RunId) -> bool {
    state.run(run).is_none_or(|run| run.state.status.is_final())
}
