//! Blobs between clients and the coordinator's store: work trees, data; never tensors.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use lockstep_common::chain;
use lockstep_common::manifest::{Manifest, Piece, TensorEntry};
use lockstep_host::blobs::{BlobError, BlobStore};
use lockstep_rpc::BlobChunk;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::identity::Identity;

/// Bytes in a message.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A blob up to this size is verified before it is sent; of a larger one the client alone sees whether it is whole.
const VERIFIED_BYTES: u64 = 256 << 20;

/// A checkpoint up to this size is read before a run begins from it, which takes seconds; of a larger one the processes alone
/// see whether it is whole.
const CHECKED_BYTES: u64 = 4 << 30;

/// Chunks that wait for the disk.
const WAITING: usize = 4;

/// The store, as clients reach it.
#[derive(Clone, Debug)]
pub(super) struct Blobs(Arc<BlobStore>, Identity);

impl Blobs {
    /// The store at `dir`, which must stay the one of `identity` for whatever is acknowledged.
    pub(super) fn open(dir: &Path, identity: Identity) -> Result<Self, BlobError> {
        Ok(Self(Arc::new(BlobStore::open(dir)?), identity))
    }

    /// That it is the coordinator's own store: asked before something is looked for or written there, and after.
    async fn is_ours(&self) -> Result<(), Status> {
        let identity = self.1.clone();
        let checked = tokio::task::spawn_blocking(move || identity.check()).await;
        let checked = checked.map_err(|_| Status::internal("the store panicked"))?;
        checked.map_err(|error| Status::failed_precondition(chain(&error)))
    }

    /// That it is there, as long as it should be.
    ///
    /// # Errors
    /// `NotFound`, or `DataLoss` with both lengths.
    pub(super) async fn sees(&self, piece: &Piece) -> Result<(), Status> {
        self.is_ours().await?;
        self.0.check(piece).map_err(|error| match error {
            BlobError::Missing { digest, .. } => Status::not_found(format!("blob `{digest}` is not in the store")),
            _ => refusal(&error),
        })
    }

    /// Whether it is there and whole; it will be there after a power cut, too.
    pub(super) async fn has(&self, piece: Piece) -> Result<bool, Status> {
        self.is_ours().await?;
        let store = Arc::clone(&self.0);
        let found = tokio::task::spawn_blocking(move || store.has_durably(&piece)).await;
        let found = found.map_err(|_| Status::internal("the store panicked"))?.map_err(|error| refusal(&error))?;
        self.is_ours().await?;
        Ok(found)
    }

    /// That everything that `manifest` names is there, as long as it should be; of a checkpoint that is not huge, that it is what
    /// it was.
    ///
    /// # Errors
    /// `DataLoss`, with the blob that is missing or damaged.
    pub(super) async fn check(&self, manifest: Vec<u8>) -> Result<(), Status> {
        let manifest = Manifest::decode(&manifest).map_err(|error| Status::data_loss(chain(&error)))?;
        self.is_ours().await?;
        let store = Arc::clone(&self.0);
        let checked = tokio::task::spawn_blocking(move || {
            let tensors = manifest.tensors.iter().flat_map(|entry| &entry.pieces);
            let mut pieces = tensors.chain(manifest.ranks.iter().flat_map(|rank| rank.generators.values()));
            let bytes = manifest.tensors.iter().filter_map(TensorEntry::bytes).fold(0, u64::saturating_add);
            if bytes > CHECKED_BYTES {
                pieces.try_for_each(|piece| store.check(piece))
            } else {
                pieces.try_for_each(|piece| store.verify(piece).map(drop))
            }
        });
        let checked = checked.await.map_err(|_| Status::internal("the store panicked"))?;
        checked.map_err(|error| Status::data_loss(format!("the checkpoint cannot be read: {}", chain(&error))))
    }

    /// Stores what comes, and says what it is once that is durable. Nothing is kept of a stream that breaks off.
    pub(super) async fn put(
        &self,
        mut chunks: impl Stream<Item = Result<BlobChunk, Status>> + Unpin,
    ) -> Result<Piece, Status> {
        self.is_ours().await?;
        let store = Arc::clone(&self.0);
        // `None` says that it is whole.
        let (to, mut from) = mpsc::channel::<Option<Vec<u8>>>(WAITING);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = store.writer()?;
            while let Some(next) = from.blocking_recv() {
                let Some(data) = next else {
                    let piece = writer.finish()?;
                    store.sync()?;
                    return Ok(Some(piece));
                };
                writer.write(&data)?;
            }
            Ok(None)
        });
        while let Some(chunk) = chunks.next().await {
            // A writer that has failed says why below.
            if to.send(Some(chunk?.data)).await.is_err() {
                break;
            }
        }
        let _ = to.send(None).await;
        drop(to);
        let written = writing.await.map_err(|_| Status::internal("the store panicked"))?;
        let written = written.map_err(|error| refusal(&error))?;
        self.is_ours().await?;
        written.ok_or_else(|| Status::cancelled("the blob broke off"))
    }

    /// Sends the bytes of `piece` from `offset` on into `to`.
    pub(super) async fn send(self, piece: Piece, offset: u64, to: mpsc::Sender<Result<BlobChunk, Status>>) {
        let sending = tokio::task::spawn_blocking(move || {
            let send = |data: &[u8]| to.blocking_send(Ok(BlobChunk { data: data.to_vec() })).is_ok();
            let sent = if offset == 0 && piece.bytes <= VERIFIED_BYTES {
                // The client may be gone.
                self.0.get(&piece).map(|bytes| bytes.chunks(CHUNK_BYTES).all(send))
            } else {
                self.stream(&piece, offset, send)
            };
            if let Err(error) = sent {
                let _ = to.blocking_send(Err(refusal(&error)));
            }
        });
        // One that panics ends the stream too early, which the client sees.
        let _ = sending.await;
    }

    fn stream(&self, piece: &Piece, offset: u64, send: impl Fn(&[u8]) -> bool) -> Result<bool, BlobError> {
        let path = self.0.path(&piece.digest);
        let read = || -> io::Result<bool> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut file = file.take(piece.bytes.saturating_sub(offset));
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            loop {
                chunk.clear();
                (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
                if chunk.is_empty() || !send(&chunk) {
                    return Ok(chunk.is_empty());
                }
            }
        };
        read().map_err(|source| BlobError::Io { action: "read", path: path.clone(), source })
    }
}

fn refusal(error: &BlobError) -> Status {
    match error {
        BlobError::Missing { .. } => Status::not_found(chain(error)),
        // What is stored is not damaged: it cannot be added to.
        BlobError::Io { action: "make" | "write" | "sync", .. } => Status::resource_exhausted(chain(error)),
        _ => Status::data_loss(chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_common::Domain;
    use tonic::Code;

    use super::*;

    #[test]
    fn a_store_that_takes_nothing_is_told_from_stored_bytes_that_are_damaged() {
        let io = |action, kind: io::ErrorKind| {
            refusal(&BlobError::Io { action, path: "/store/tmp".into(), source: kind.into() }).code()
        };
        assert_eq!(io("write", io::ErrorKind::StorageFull), Code::ResourceExhausted);
        assert_eq!(io("make", io::ErrorKind::PermissionDenied), Code::ResourceExhausted);
        assert_eq!(io("read", io::ErrorKind::Other), Code::DataLoss);
    }

    #[tokio::test]
    async fn a_truncated_blob_is_refused_with_both_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::take(&dir.path().join("store"), dir.path(), Vec::new, || Ok("id".into())).unwrap();
        let blobs = Blobs::open(&dir.path().join("store"), identity).unwrap();
        let piece = blobs.0.put(b"weights").unwrap();
        blobs.sees(&piece).await.unwrap();
        std::fs::write(blobs.0.path(&piece.digest), b"we").unwrap();
        let refused = blobs.sees(&piece).await.unwrap_err();
        assert_eq!(refused.code(), Code::DataLoss);
        assert!(refused.message().contains("is truncated: 2 bytes of 7"), "{}", refused.message());
        let other = Piece { digest: Domain::Blob.digest(b"other"), bytes: 5 };
        assert_eq!(blobs.sees(&other).await.unwrap_err().code(), Code::NotFound);
    }
}
