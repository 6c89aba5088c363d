//! Reads manifests of committed checkpoints from the blob store.

use std::sync::Arc;

use lockstep_common::manifest::{Manifest, Piece};
use lockstep_common::{Digest, chain};
use lockstep_core::ClusterState;
use lockstep_core::state::Run;
use lockstep_store::BlobStore;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::identity::Identity;
use crate::node::{CallError, Handle};

/// Reads manifests. Clones share the store.
#[derive(Clone, Debug)]
pub struct Manifests {
    handle: Handle,
    store: Arc<BlobStore>,
    identity: Identity,
}

impl Manifests {
    /// Reads the manifests of the checkpoints in the state behind `handle` from `store`, as long as `identity` confirms the store.
    pub fn new(handle: Handle, store: Arc<BlobStore>, identity: Identity) -> Self {
        Self { handle, store, identity }
    }

    /// The id of the checkpoint with this id or unique prefix, and the bytes of its manifest.
    ///
    /// # Errors
    /// `NotFound` if no checkpoint, or more than one, matches; `FailedPrecondition` if the directory is another store; `DataLoss` if the
    /// blob cannot be read.
    pub async fn find(&self, prefix: &str) -> Result<(Digest, Vec<u8>), Status> {
        let prefix = prefix.to_owned();
        let found = move |state: &ClusterState| -> Result<_, CallError> {
            let id = state.find_checkpoint(&prefix)?;
            Ok((id, state.checkpoint(&id)?.1.manifest.clone()))
        };
        let (id, piece) = self.handle.read(found).await??;
        Ok((id, self.read(id, piece).await?))
    }

    /// The bytes of the manifest of checkpoint `id`.
    ///
    /// # Errors
    /// `FailedPrecondition` if the directory is another store, `DataLoss` if the blob cannot be read.
    async fn read(&self, id: Digest, piece: Piece) -> Result<Vec<u8>, Status> {
        let (store, identity) = (Arc::clone(&self.store), self.identity.clone());
        let read = spawn_blocking(move || {
            identity.check().map_err(|error| Status::failed_precondition(chain(&error)))?;
            let unread = |why: String| {
                Status::data_loss(format!("the manifest of checkpoint `{}` cannot be read: {why}", id.short()))
            };
            let bytes = store.get(&piece).map_err(|error| unread(chain(&error)))?;
            if Manifest::id(&bytes) == id {
                Ok(bytes)
            } else {
                Err(unread("the blob is the manifest of another checkpoint".to_owned()))
            }
        });
        read.await.map_err(|_| Status::internal("an operation on the store panicked; see the coordinator's log"))?
    }
}

/// Compares the last checkpoint of each active run with its manifest. Returns a text about the first contradiction.
///
/// Finds rows of the state that have valid checksums, but are from different times. A manifest that cannot be read is skipped.
pub(crate) fn contradiction(state: &ClusterState, store: &BlobStore) -> Option<String> {
    let goes_on = |run: &&Run| !run.state.status.is_final();
    state.runs().into_iter().filter(goes_on).find_map(|run| {
        let (&step, last) = run.checkpoints.last_key_value()?;
        let said = |detail: String| {
            Some(format!("the row `checkpoint/{}/{step:020}` contradicts its manifest: {detail}", run.id()))
        };
        let bytes = store.get(&last.manifest).ok()?;
        let manifest = match Manifest::decode(&bytes) {
            Ok(manifest) if Manifest::id(&bytes) == last.id => manifest,
            Ok(_) => return said(format!("the blob is not the manifest of checkpoint `{}`", last.id)),
            Err(error) => {
                return said(format!("the manifest of checkpoint `{}` cannot be decoded: {}", last.id, chain(&error)));
            }
        };
        if manifest.run != *run.id() {
            return said(format!("the manifest is of run `{}`", manifest.run));
        }
        if manifest.job_text != run.submission.job {
            return said("the manifest is of another job".to_owned());
        }
        if (manifest.step, manifest.state) != (step, last.state) {
            return said(format!("the manifest is of another state, at step {}", manifest.step));
        }
        None
    })
}
