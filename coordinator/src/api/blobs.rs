//! Blobs between clients and the coordinator's store: work trees, data; never tensors.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use lockstep_common::chain;
use lockstep_common::manifest::Piece;
use lockstep_host::blobs::{BlobError, BlobStore};
use lockstep_rpc::BlobChunk;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

/// Bytes in a message.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A blob up to this size is verified before it is sent; of a larger one the client alone sees whether it is whole.
const VERIFIED_BYTES: u64 = 256 << 20;

/// Chunks that wait for the disk.
const WAITING: usize = 4;

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

    /// Stores what comes, and says what it is once that is durable. Nothing is kept of a stream that breaks off.
    pub(super) async fn put(
        &self,
        mut chunks: impl Stream<Item = Result<BlobChunk, Status>> + Unpin,
    ) -> Result<Piece, Status> {
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
        written.map_err(|error| refusal(&error))?.ok_or_else(|| Status::cancelled("the blob broke off"))
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
        _ => Status::data_loss(chain(error)),
    }
}
