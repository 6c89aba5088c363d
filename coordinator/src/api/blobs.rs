//! Blobs between clients and the coordinator's store: work trees, data; never tensors.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Take};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_common::manifest::{Manifest, Piece, TensorEntry};
use lockstep_common::{Digest, Domain, chain};
use lockstep_host::blobs::{BlobError, BlobStore};
use lockstep_host::git::built_on;
use lockstep_rpc::BlobChunk;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::identity::Identity;

/// Bytes in a message of a client.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes in a message to a client: what is on its way to one that is slow is held.
const SENT_BYTES: usize = 1 << 18;

/// Blobs that come at a time: each has an open file.
const UPLOADS: usize = 128;

/// Blobs that go to clients at a time, likewise.
const READERS: usize = 256;

/// Blobs that go to browsers at a time: they have places of their own, so that the page keeps no client out.
const PAGE_READERS: usize = 64;

/// See [`Blobs::idle`].
const IDLE: Duration = Duration::from_mins(2);

/// A checkpoint up to this size is read before a run begins from it, which takes seconds; of a larger one the processes alone
/// see whether it is whole.
const CHECKED_BYTES: u64 = 4 << 30;

/// The store, as clients reach it.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    store: Arc<BlobStore>,
    identity: Identity,
    /// A permit for each blob that comes.
    uploads: Arc<Semaphore>,
    /// A permit for each blob that goes, and how many there are.
    readers: Arc<Semaphore>,
    most_readers: usize,
    /// How long a stream may stand still, in either direction.
    idle: Duration,
}

impl Blobs {
    /// The store at `dir`, which must stay the one of `identity` for whatever is acknowledged.
    pub(crate) fn open(dir: &Path, identity: Identity) -> Result<Self, BlobError> {
        let store = Arc::new(BlobStore::open(dir)?);
        let (uploads, readers) = (Arc::new(Semaphore::new(UPLOADS)), Arc::new(Semaphore::new(READERS)));
        Ok(Self { store, identity, uploads, readers, most_readers: READERS, idle: IDLE })
    }

    /// The same store with places for readers of its own, as browsers reach it.
    pub(crate) fn of_page(&self) -> Self {
        Self { readers: Arc::new(Semaphore::new(PAGE_READERS)), most_readers: PAGE_READERS, ..self.clone() }
    }

    /// The blob with this digest, as long as it is in the store.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn find(&self, digest: Digest) -> Result<Piece, Status> {
        self.is_ours().await?;
        let path = self.store.path(&digest);
        let length = on_disk(move || Ok(std::fs::metadata(path).map(|metadata| metadata.len()))).await?;
        let missing = |_| Status::not_found(format!("blob `{digest}` is not in the store"));
        Ok(Piece { digest, bytes: length.map_err(missing)? })
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
    pub(super) async fn check(&self, manifest: Vec<u8>) -> Result<(), Status> {
        let manifest = Manifest::decode(&manifest).map_err(|error| Status::data_loss(chain(&error)))?;
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
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

    /// Stores what comes, and says what it is once that is durable. Nothing is kept of a stream that breaks off, or that brings
    /// nothing for a while ([`Blobs::idle`]); and while it brings nothing, no thread waits for it.
    pub(super) async fn put(
        &self,
        mut chunks: impl Stream<Item = Result<BlobChunk, Status>> + Unpin,
    ) -> Result<Piece, Status> {
        let _place = self
            .uploads
            .try_acquire()
            .map_err(|_| Status::unavailable(format!("{UPLOADS} blobs are on their way here already: try again")))?;
        self.is_ours().await?;
        let store = Arc::clone(&self.store);
        let mut writer = on_disk(move || store.writer()).await?;
        while let Some(chunk) = timeout(self.idle, chunks.next()).await.map_err(|_| self.stood_still())? {
            let data = chunk?.data;
            writer = on_disk(move || writer.write(&data).map(|()| writer)).await?;
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

    /// Sends the bytes of `piece` from `offset` on into `to`, a chunk at a time: for a reader that is slow nothing more is held. What
    /// is not as it was ends the stream with an error.
    pub(crate) async fn send(self, piece: Piece, offset: u64, to: mpsc::Sender<Result<BlobChunk, Status>>) {
        let streamed = if offset > piece.bytes {
            Err(Status::invalid_argument(format!(
                "offset {offset} is behind the end of a blob of {} bytes",
                piece.bytes
            )))
        } else {
            self.stream(&piece, offset, &to).await
        };
        if let Err(status) = streamed {
            // The client may be gone.
            let _ = timeout(self.idle, to.send(Err(status))).await;
        }
    }

    fn no_reader(&self) -> Status {
        Status::unavailable(format!("{} blobs are being read here already: try again", self.most_readers))
    }

    fn stood_still(&self) -> Status {
        Status::deadline_exceeded(format!("nothing came or went for {} s", self.idle.as_secs_f32()))
    }

    async fn stream(
        &self,
        piece: &Piece,
        offset: u64,
        to: &mpsc::Sender<Result<BlobChunk, Status>>,
    ) -> Result<(), Status> {
        let _place = self.readers.try_acquire().map_err(|_| self.no_reader())?;
        let (store, of) = (Arc::clone(&self.store), piece.clone());
        let mut reading = on_disk(move || Reading::begin(&store, of, offset)).await?;
        loop {
            let data;
            (reading, data) = on_disk(move || reading.next()).await?;
            if data.is_empty() {
                return on_disk(move || reading.end()).await;
            }
            match timeout(self.idle, to.send(Ok(BlobChunk { data }))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(self.stood_still()),
            }
        }
    }
}

/// A blob that is read and hashed bit by bit.
struct Reading {
    piece: Piece,
    path: PathBuf,
    file: Take<File>,
    /// None for one that is not read from its beginning: then the client alone sees whether it is whole.
    hasher: Option<blake3::Hasher>,
}

impl Reading {
    fn begin(store: &BlobStore, piece: Piece, offset: u64) -> Result<Self, BlobError> {
        let path = store.path(&piece.digest);
        let mut file = store.opened(&piece)?;
        let sought = file.seek(SeekFrom::Start(offset));
        sought.map_err(|source| BlobError::Io { action: "read", path: path.clone(), source })?;
        let file = file.take(piece.bytes.saturating_sub(offset));
        let hasher = (offset == 0).then(|| Domain::Blob.hasher());
        Ok(Self { piece, path, file, hasher })
    }

    /// The next chunk; empty at the end.
    fn next(mut self) -> Result<(Self, Vec<u8>), BlobError> {
        let mut data = Vec::with_capacity(SENT_BYTES);
        let read = (&mut self.file).take(SENT_BYTES as u64).read_to_end(&mut data);
        read.map_err(|source| BlobError::Io { action: "read", path: self.path.clone(), source })?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        Ok((self, data))
    }

    /// Whether it was what it should be.
    fn end(self) -> Result<(), BlobError> {
        let Self { piece: Piece { digest, .. }, path, hasher, .. } = self;
        match hasher.map(|hasher| Digest::of(&hasher)) {
            Some(found) if found != digest => Err(BlobError::Corrupt { digest, path, found }),
            _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::io;

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
        let piece = blobs.store.put(b"weights").unwrap();
        blobs.sees(&piece).await.unwrap();
        std::fs::write(blobs.store.path(&piece.digest), b"we").unwrap();
        let refused = blobs.sees(&piece).await.unwrap_err();
        assert_eq!(refused.code(), Code::DataLoss);
        assert!(refused.message().contains("is truncated: 2 bytes of 7"), "{}", refused.message());
        std::fs::write(blobs.store.path(&piece.digest), b"weights and more").unwrap();
        assert!(blobs.sees(&piece).await.unwrap_err().message().contains("is longer than it was: 16 bytes of 7"));
        let other = Piece { digest: Domain::Blob.digest(b"other"), bytes: 5 };
        assert_eq!(blobs.sees(&other).await.unwrap_err().code(), Code::NotFound);
    }

    /// What comes of a blob, and how its stream ends.
    async fn received(blobs: &Blobs, piece: &Piece, offset: u64) -> (Vec<u8>, Option<Code>) {
        let (to, mut from) = mpsc::channel(1);
        let sending = tokio::spawn(blobs.clone().send(piece.clone(), offset, to));
        let (mut bytes, mut end) = (Vec::new(), None);
        while let Some(chunk) = from.recv().await {
            match chunk {
                Ok(chunk) => bytes.extend(chunk.data),
                Err(status) => end = Some(status.code()),
            }
        }
        sending.await.unwrap();
        (bytes, end)
    }

    #[tokio::test]
    async fn a_blob_is_hashed_on_the_way_and_one_that_has_changed_breaks_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::take(&dir.path().join("store"), dir.path(), Vec::new, || Ok("id".into())).unwrap();
        let blobs = Blobs::open(&dir.path().join("store"), identity).unwrap();
        let mut whole: Vec<u8> = (0..2_500_000_u32).map(|index| index as u8).collect();
        let chunks = whole.chunks(700_000).map(|data| Ok(BlobChunk { data: data.to_vec() }));
        let piece = blobs.put(tokio_stream::iter(chunks.collect::<Vec<_>>())).await.unwrap();
        assert_eq!(received(&blobs, &piece, 0).await, (whole.clone(), None));
        assert_eq!(received(&blobs, &piece, 2_000_000).await, (whole[2_000_000..].to_vec(), None));
        assert_eq!(received(&blobs, &piece, u64::MAX).await, (Vec::new(), Some(Code::InvalidArgument)));
        whole[2_400_000] ^= 1;
        std::fs::write(blobs.store.path(&piece.digest), &whole).unwrap();
        let (bytes, end) = received(&blobs, &piece, 0).await;
        assert_eq!((bytes.len(), end), (whole.len(), Some(Code::DataLoss)));
        let broken = [Ok(BlobChunk { data: vec![1] }), Err(Status::cancelled("gone"))];
        assert_eq!(blobs.put(tokio_stream::iter(broken)).await.unwrap_err().code(), Code::Cancelled);
        assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "nothing is left of it");
    }

    /// Whoever may write to the store can put a link there, to a file that the coordinator's user alone may read.
    #[tokio::test]
    async fn nothing_is_sent_of_what_a_link_in_the_place_of_a_blob_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::take(&dir.path().join("store"), dir.path(), Vec::new, || Ok("id".into())).unwrap();
        let blobs = Blobs::open(&dir.path().join("store"), identity).unwrap();
        let piece = blobs.store.put(b"weights").unwrap();
        let path = blobs.store.path(&piece.digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(dir.path().join("key"), "SECRETS").unwrap();
        std::os::unix::fs::symlink(dir.path().join("key"), &path).unwrap();
        for (bytes, offset) in [(7, 0), (7, 1), (1, 0)] {
            let of = Piece { bytes, ..piece.clone() };
            assert_eq!(received(&blobs, &of, offset).await, (Vec::new(), Some(Code::DataLoss)));
            let refused = blobs.sees(&of).await.unwrap_err();
            assert!(!refused.message().contains("7 bytes"), "its size is nobody's business: {}", refused.message());
        }
        assert_eq!(blobs.commit_of(piece).await.unwrap_err().code(), Code::DataLoss);
    }

    #[tokio::test]
    async fn the_commit_of_a_work_tree_is_read_from_its_header_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::take(&dir.path().join("store"), dir.path(), Vec::new, || Ok("id".into())).unwrap();
        let blobs = Blobs::open(&dir.path().join("store"), identity).unwrap();
        let tree = |header: &str| {
            [
                b"lockstep work tree 1\n".to_vec(),
                (header.len() as u64).to_le_bytes().to_vec(),
                header.as_bytes().to_vec(),
            ]
            .concat()
        };
        let part = |path: &str| {
            format!(r#"{{"path":"{path}","url":null,"commit":"c0","tree":"t0","objects":3,"empty_directories":[]}}"#)
        };
        let whole = [tree(&format!("[{}]", part(""))), vec![1, 2, 3]].concat();
        let piece = blobs.store.put(&whole).unwrap();
        assert_eq!(blobs.commit_of(piece).await.unwrap(), "c0");
        let huge = [b"lockstep work tree 1\n".to_vec(), u64::MAX.to_le_bytes().to_vec()].concat();
        for other in [b"".to_vec(), b"text".to_vec(), tree("["), tree("[]"), tree(&format!("[{}]", part("sub"))), huge]
        {
            let piece = blobs.store.put(&other).unwrap();
            let refused = blobs.commit_of(piece).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{other:?}");
            assert!(refused.message().starts_with("field `code.tree`: "), "{}", refused.message());
        }
    }

    #[tokio::test]
    async fn a_stream_that_stands_still_ends_and_there_are_only_so_many_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::take(&dir.path().join("store"), dir.path(), Vec::new, || Ok("id".into())).unwrap();
        let opened = Blobs::open(&dir.path().join("store"), identity).unwrap();
        let blobs = Blobs { idle: Duration::from_millis(200), ..opened };
        let piece = blobs.store.put(&vec![7; 4 * SENT_BYTES]).unwrap();
        // Nothing comes.
        let silent = tokio_stream::once(Ok(BlobChunk { data: vec![1] })).chain(tokio_stream::pending());
        assert_eq!(blobs.put(silent).await.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "nothing is left of it");
        // Nobody reads.
        let (to, mut from) = mpsc::channel(1);
        blobs.clone().send(piece, 0, to).await;
        assert!(from.recv().await.unwrap().is_ok() && from.recv().await.is_none());
        // Others come.
        let places = blobs.uploads.try_acquire_many(UPLOADS as u32).unwrap();
        let whole = || tokio_stream::once(Ok(BlobChunk { data: vec![1] }));
        let refused = blobs.put(whole()).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Unavailable, "128 blobs are on their way here already: try again")
        );
        drop(places);
        blobs.put(whole()).await.unwrap();
        let places = blobs.readers.try_acquire_many(READERS as u32).unwrap();
        let piece = blobs.store.put(b"weights").unwrap();
        assert_eq!(received(&blobs, &piece, 0).await, (Vec::new(), Some(Code::Unavailable)));
        drop(places);
        assert_eq!(received(&blobs, &piece, 0).await, (b"weights".to_vec(), None));
    }
}
