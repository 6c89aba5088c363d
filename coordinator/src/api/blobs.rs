//! Blobs between clients and the coordinator's store: work trees and the like, never tensors.

use std::path::Path;
use std::sync::Arc;

use lockstep_common::manifest::Piece;
use lockstep_host::blobs::{BlobError, BlobStore};
use lockstep_rpc::BlobChunk;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::error::chain;

/// The largest that is taken: it lies in memory until it is whole.
pub const MAX_BLOB_BYTES: usize = 256 << 20;

/// Bytes in a message.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The store, as clients reach it.
#[derive(Clone, Debug)]
pub(super) struct Blobs(Arc<BlobStore>);

impl Blobs {
    pub(super) fn open(dir: &Path) -> Result<Self, BlobError> {
        Ok(Self(Arc::new(BlobStore::open(dir)?)))
    }

    /// Whether it is there, as long as it should be.
    pub(super) fn has(&self, piece: &Piece) -> bool {
        self.0.has(piece)
    }

    /// Stores what comes, and says what it is once that is durable.
    pub(super) async fn put(
        &self,
        mut chunks: impl Stream<Item = Result<BlobChunk, Status>> + Unpin,
    ) -> Result<Piece, Status> {
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?.data);
            if bytes.len() > MAX_BLOB_BYTES {
                let words = format!("the blob is larger than the {MAX_BLOB_BYTES} bytes that a coordinator takes");
                return Err(Status::invalid_argument(words));
            }
        }
        let store = Arc::clone(&self.0);
        let put = move || {
            let piece = store.put(&bytes)?;
            store.sync()?;
            Ok(piece)
        };
        blocking(put).await
    }

    /// Sends the bytes of `piece`, verified, into `to`.
    pub(super) async fn send(self, piece: Piece, to: mpsc::Sender<Result<BlobChunk, Status>>) {
        let read = move || self.0.get(&piece);
        let bytes = match blocking(read).await {
            Ok(bytes) => bytes,
            Err(status) => {
                // The client may be gone.
                let _ = to.send(Err(status)).await;
                return;
            }
        };
        for chunk in bytes.chunks(CHUNK_BYTES) {
            if to.send(Ok(BlobChunk { data: chunk.to_vec() })).await.is_err() {
                return;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Status::internal("the store panicked"))?;
    done.map_err(|error| match error {
        BlobError::Missing { .. } => Status::not_found(chain(&error)),
        _ => Status::data_loss(chain(&error)),
    })
}
