//! Transfers of blobs between clients and the store: work trees, programs, file lists and media, never tensors.

use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use lockstep_common::manifest::{Manifest, Piece, TensorEntry};
use lockstep_common::{Digest, chain};
use lockstep_host::git::built_on;
use lockstep_rpc::BlobChunk;
use lockstep_store::{BlobError, BlobStore};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::convert::invalid;
use super::reserve::Reserve;
use super::transfers::{Pace, Permit, Permits};
use crate::identity::Identity;

#[cfg(test)]
mod tests;

/// Bytes per message of an upload.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes per message of a download. Small, because one message stays in memory for each slow client.
const SENT_BYTES: usize = 1 << 18;

/// Maximum number of simultaneous uploads. Each has an open file.
const UPLOADS: usize = 128;

/// Maximum number of simultaneous downloads of clients. Each has an open file.
const READERS: usize = 256;

/// Maximum number of simultaneous downloads of browsers. They have separate permits, so that the page cannot block clients.
const PAGE_READERS: usize = 64;

/// Kind of transfer in messages of `readers`.
const READ: &str = "downloads";

/// Checkpoints up to this size are read before a run is resumed from them, which takes seconds. Larger ones are read by the processes
/// only.
const CHECKED_BYTES: u64 = 4 << 30;

/// Access of clients to the store. Clones share the limits.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    store: Arc<BlobStore>,
    identity: Identity,
    uploads: Permits,
    readers: Permits,
    /// Minimum rate of a transfer.
    pace: Pace,
    reserve: Reserve,
}

impl Blobs {
    /// Opens the store at `dir`. Each transfer checks `identity`, and uploads leave `reserve` free.
    pub(crate) fn open(dir: &Path, identity: Identity, reserve: Reserve) -> Result<Self, BlobError> {
        let store = Arc::new(BlobStore::open(dir)?);
        let (uploads, readers) = (Permits::new(UPLOADS, "uploads"), Permits::new(READERS, READ));
        Ok(Self { store, identity, uploads, readers, pace: Pace::default(), reserve })
    }

    /// The same store for browsers, with separate permits for downloads.
    pub(crate) fn of_page(&self) -> Self {
        Self { readers: Permits::new(PAGE_READERS, READ), ..self.clone() }
    }

    /// The blob with this digest, with its length in the store.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` if the directory is another store.
    pub(crate) async fn find(&self, digest: Digest) -> Result<Piece, Status> {
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
        let found = on_disk(move || Ok(store.find(digest))).await?;
        found.ok_or_else(|| Status::not_found(format!("blob `{digest}` is not in the store")))
    }

    /// Checks the identity of the store. Called before each access, and again after a write.
    async fn is_ours(&self) -> Result<(), Status> {
        let identity = self.identity.clone();
        let checked = tokio::task::spawn_blocking(move || identity.check()).await;
        let checked = checked.map_err(|_| Status::internal(PANICKED))?;
        checked.map_err(|error| Status::failed_precondition(chain(&error)))
    }

    /// Checks that the store has the blob, with the right length.
    ///
    /// # Errors
    /// `NotFound`, or `DataLoss` with both lengths.
    pub(super) async fn sees(&self, piece: &Piece) -> Result<(), Status> {
        self.is_ours().await?;
        self.store.check(piece).map_err(|error| match error {
            BlobError::Missing { digest, .. } => Status::not_found(format!("blob `{digest}` is not in the store")),
            _ => refusal(&error),
        })
    }

    /// Whether the store has the complete blob, durably.
    pub(super) async fn has(&self, piece: Piece) -> Result<bool, Status> {
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
        let found = tokio::task::spawn_blocking(move || store.has_durably(&piece)).await;
        let found = found.map_err(|_| Status::internal(PANICKED))?.map_err(|error| refusal(&error))?;
        self.is_ours().await?;
        Ok(found)
    }

    /// The commit that the work tree in `piece` is based on. Reads only the header of the blob.
    ///
    /// # Errors
    /// `InvalidArgument` if the blob is not a work tree.
    pub(super) async fn commit_of(&self, piece: Piece) -> Result<String, Status> {
        let store = Arc::clone(&self.store);
        on_disk(move || {
            let file = store.opened(&piece)?;
            Ok(built_on(&mut BufReader::new(file)).map_err(|error| chain(&error)))
        })
        .await?
        .map_err(|why| Status::invalid_argument(format!("field `code.tree`: {why}")))
    }

    /// Checks that the store has all blobs of `manifest`, with the right lengths. For a checkpoint of up to [`CHECKED_BYTES`], also reads
    /// them and compares their digests.
    ///
    /// # Errors
    /// `DataLoss` with the blob that is missing or damaged.
    pub(super) async fn check(&self, manifest: Vec<u8>) -> Result<Manifest, Status> {
        let manifest = Manifest::decode(&manifest).map_err(|error| Status::data_loss(chain(&error)))?;
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
        let checked = tokio::task::spawn_blocking(move || {
            let tensors = manifest.tensors.iter().flat_map(|entry| &entry.pieces);
            let mut pieces = tensors.chain(manifest.ranks.iter().flat_map(|rank| rank.generators.values()));
            let bytes = manifest.tensors.iter().filter_map(TensorEntry::bytes).fold(0, u64::saturating_add);
            let checked = if bytes > CHECKED_BYTES {
                pieces.try_for_each(|piece| store.check(piece))
            } else {
                pieces.try_for_each(|piece| store.verify(piece))
            };
            drop(pieces);
            checked.map(|()| manifest)
        });
        let checked = checked.await.map_err(|_| Status::internal(PANICKED))?;
        checked.map_err(|error| Status::data_loss(format!("the checkpoint cannot be read: {}", chain(&error))))
    }

    /// Stores an upload of the client at `from`, durably. Returns its digest and length.
    ///
    /// An upload that breaks off or is too slow ([`Pace`]) leaves no file. No thread blocks while the client sends nothing.
    ///
    /// # Errors
    /// `ResourceExhausted` once only the reserve is left on the disk; `DeadlineExceeded` if the upload is too slow.
    pub(super) async fn put(
        &self,
        from: Option<SocketAddr>,
        mut chunks: impl Stream<Item = Result<BlobChunk, Status>> + Unpin,
    ) -> Result<Piece, Status> {
        let _permit = self.uploads.take(from)?;
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
        let mut writer = on_disk(move || store.writer()).await?;
        let (mut pace, mut is_first) = (self.pace, true);
        while let Some(chunk) = pace.wait(chunks.next()).await? {
            let data = chunk?.data;
            // An empty blob may be one empty chunk. Later empty chunks would hold a permit without any progress.
            if data.is_empty() && !is_first {
                return Err(invalid("data", "a chunk after the first is empty"));
            }
            is_first = false;
            pace.moved(data.len());
            let reserve = self.reserve.clone();
            let written = move || match reserve.room(data.len() as u64) {
                Ok(_room) => writer.write(&data).map(|()| Ok(writer)),
                Err(refused) => Ok(Err(refused)),
            };
            writer = on_disk(written).await??;
        }
        let store = Arc::clone(&self.store);
        let piece = on_disk(move || {
            let piece = writer.finish(&store)?;
            store.sync()?;
            Ok(piece)
        });
        let piece = piece.await?;
        self.is_ours().await?;
        Ok(piece)
    }

    /// A permit for one download of the client at `from`, if its address is known.
    ///
    /// # Errors
    /// `Unavailable` if all permits are taken.
    pub(crate) fn permit(&self, from: Option<SocketAddr>) -> Result<Permit, Status> {
        self.readers.take(from)
    }

    /// Sends the bytes of `piece` from `offset` on to `to`, one chunk at a time.
    ///
    /// Ends with an error, and frees the `permit`, if the client is too slow ([`Pace`]), or if the digest of the bytes is wrong.
    pub(crate) async fn send(
        self,
        permit: Permit,
        piece: Piece,
        offset: u64,
        to: mpsc::Sender<Result<BlobChunk, Status>>,
    ) {
        let streamed = if offset > piece.bytes {
            Err(Status::invalid_argument(format!(
                "offset {offset} is beyond the end of the blob ({} bytes)",
                piece.bytes
            )))
        } else {
            self.stream(&piece, offset, &to).await
        };
        drop(permit);
        if let Err(status) = streamed {
            // An error means that the client is gone.
            let _ = timeout(self.pace.window(), to.send(Err(status))).await;
        }
    }

    async fn stream(
        &self,
        piece: &Piece,
        offset: u64,
        to: &mpsc::Sender<Result<BlobChunk, Status>>,
    ) -> Result<(), Status> {
        let (store, of) = (Arc::clone(&self.store), piece.clone());
        let mut pace = self.pace;
        let mut reading = on_disk(move || store.reader(of, offset)).await?;
        loop {
            let data;
            (reading, data) = on_disk(move || {
                let data = reading.next(SENT_BYTES)?;
                Ok((reading, data))
            })
            .await?;
            if data.is_empty() {
                return on_disk(move || reading.end()).await;
            }
            let bytes = data.len();
            if pace.wait(to.send(Ok(BlobChunk { data }))).await?.is_err() {
                return Ok(());
            }
            pace.moved(bytes);
        }
    }
}

/// Message of a failed blocking task.
const PANICKED: &str = "an operation on the store panicked; see the coordinator's log";

/// Runs `work` on a thread that may block on the disk.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal(PANICKED))?.map_err(|error| refusal(&error))
}

fn refusal(error: &BlobError) -> Status {
    match error {
        BlobError::Missing { .. } => Status::not_found(chain(error)),
        // Stored blobs are intact, but the store cannot be written.
        BlobError::Io { action: "make" | "write" | "sync", .. } => Status::resource_exhausted(chain(error)),
        _ => Status::data_loss(chain(error)),
    }
}
