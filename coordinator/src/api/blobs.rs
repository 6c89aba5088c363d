//! Blobs between clients and the coordinator's store: work trees, data; never tensors.

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

/// Bytes in a message of a client.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes in a message to a client: what is on its way to one that is slow is held.
const SENT_BYTES: usize = 1 << 18;

/// Blobs that come at a time: each has an open file.
const UPLOADS: usize = 128;

/// Blobs that go to clients at a time, likewise.
const READERS: usize = 256;

/// Blobs that go to browsers at a time: they have permits of their own, so that the page keeps no client out.
const PAGE_READERS: usize = 64;

/// What those are, as a refusal says it.
const READ: &str = "are being read here";

/// A checkpoint up to this size is read before a run begins from it, which takes seconds; of a larger one the processes alone
/// see whether it is whole.
const CHECKED_BYTES: u64 = 4 << 30;

/// The store, as clients reach it.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    store: Arc<BlobStore>,
    identity: Identity,
    /// For blobs that come.
    uploads: Permits,
    /// For blobs that go.
    readers: Permits,
    /// How slow a stream may be, in either direction.
    pace: Pace,
    reserve: Reserve,
}

impl Blobs {
    /// The store at `dir`, which must stay the one of `identity` for whatever is acknowledged, and whose disk keeps a `reserve`.
    pub(crate) fn open(dir: &Path, identity: Identity, reserve: Reserve) -> Result<Self, BlobError> {
        let store = Arc::new(BlobStore::open(dir)?);
        let (uploads, readers) = (Permits::new(UPLOADS, "are on their way here"), Permits::new(READERS, READ));
        Ok(Self { store, identity, uploads, readers, pace: Pace::default(), reserve })
    }

    /// The same store with permits for readers of its own, as browsers reach it.
    pub(crate) fn of_page(&self) -> Self {
        Self { readers: Permits::new(PAGE_READERS, READ), ..self.clone() }
    }

    /// The blob with this digest, as long as it is in the store.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn find(&self, digest: Digest) -> Result<Piece, Status> {
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
        let found = on_disk(move || Ok(store.find(digest))).await?;
        found.ok_or_else(|| Status::not_found(format!("blob `{digest}` is not in the store")))
    }

    /// That it is the coordinator's own store: asked before something is looked for or written there, and after.
    async fn is_ours(&self) -> Result<(), Status> {
        let identity = self.identity.clone();
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
        self.store.check(piece).map_err(|error| match error {
            BlobError::Missing { digest, .. } => Status::not_found(format!("blob `{digest}` is not in the store")),
            _ => refusal(&error),
        })
    }

    /// Whether it is there and whole; it will be there after a power cut, too.
    pub(super) async fn has(&self, piece: Piece) -> Result<bool, Status> {
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
        let found = tokio::task::spawn_blocking(move || store.has_durably(&piece)).await;
        let found = found.map_err(|_| Status::internal("the store panicked"))?.map_err(|error| refusal(&error))?;
        self.is_ours().await?;
        Ok(found)
    }

    /// The commit that the work tree in `piece` builds on; only its header is read.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no work tree.
    pub(super) async fn commit_of(&self, piece: Piece) -> Result<String, Status> {
        let store = Arc::clone(&self.store);
        on_disk(move || {
            let file = store.opened(&piece)?;
            Ok(built_on(&mut BufReader::new(file)).map_err(|error| chain(&error)))
        })
        .await?
        .map_err(|why| Status::invalid_argument(format!("field `code.tree`: {why}")))
    }

    /// That everything that `manifest` names is there, as long as it should be; of a checkpoint that is not huge, that it is what
    /// it was.
    ///
    /// # Errors
    /// `DataLoss`, with the blob that is missing or damaged.
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
        let checked = checked.await.map_err(|_| Status::internal("the store panicked"))?;
        checked.map_err(|error| Status::data_loss(format!("the checkpoint cannot be read: {}", chain(&error))))
    }

    /// Stores what comes `from` a client, and says what it is once that is durable. Nothing is kept of a stream that breaks off, or
    /// that is too slow ([`Pace`]); and while it brings nothing, no thread waits for it.
    ///
    /// # Errors
    /// `ResourceExhausted` as soon as the disk has no more than its reserve.
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
            // An empty blob may be one empty chunk. Others would keep a permit, and bring nothing.
            if data.is_empty() && !is_first {
                return Err(invalid("data", "a chunk is empty, and is not the first"));
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

    /// A permit for one reader at the other end of a connection `from` there, if that is known.
    ///
    /// # Errors
    /// `Unavailable` if there is none.
    pub(crate) fn permit(&self, from: Option<SocketAddr>) -> Result<Permit, Status> {
        self.readers.take(from)
    }

    /// Sends the bytes of `piece` from `offset` on into `to`, a chunk at a time: for a reader that is slow nothing more is held, and one
    /// that is too slow gives its `permit` back ([`Pace`]). What is not as it was ends the stream with an error.
    pub(crate) async fn send(
        self,
        permit: Permit,
        piece: Piece,
        offset: u64,
        to: mpsc::Sender<Result<BlobChunk, Status>>,
    ) {
        let streamed = if offset > piece.bytes {
            Err(Status::invalid_argument(format!(
                "offset {offset} is behind the end of a blob of {} bytes",
                piece.bytes
            )))
        } else {
            self.stream(&piece, offset, &to).await
        };
        drop(permit);
        if let Err(status) = streamed {
            // The client may be gone.
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

/// Work for a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal("the store panicked"))?.map_err(|error| refusal(&error))
}

fn refusal(error: &BlobError) -> Status {
    match error {
        BlobError::Missing { .. } => Status::not_found(chain(error)),
        // What is stored is not damaged: it cannot be added to.
        BlobError::Io { action: "make" | "write" | "sync", .. } => Status::resource_exhausted(chain(error)),
        _ => Status::data_loss(chain(error)),
    }
}
