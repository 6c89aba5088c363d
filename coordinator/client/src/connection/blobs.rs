//! Blobs between this machine and a coordinator's store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use lockstep_common::listing;
use lockstep_common::manifest::{DataFile, Piece};
use lockstep_common::{Digest, Domain};
use lockstep_coordinator::api::CHUNK_BYTES;
use lockstep_rpc::{BlobChunk, BlobRef, GetBlobRequest, is_busy};
use lockstep_store::{BlobError, BlobStore};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, block_in_place};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::connection::client::{Client, Patience, lost};
use crate::terminal::{Exit, Failure, Progress};

/// Most transfers at a time.
const AT_ONCE: usize = 4;

/// Most chunks of an upload that were read and are not sent yet.
const WAITING: usize = 4;

/// The bytes of an upload.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Bytes(Vec<u8>),
    /// The contents of this file.
    File(PathBuf),
}

impl Client {
    /// Stores a blob, and returns whether it is new to the store.
    pub(crate) async fn put_blob(&self, bytes: Vec<u8>) -> Result<bool, Failure> {
        let piece = Piece { digest: Domain::Blob.digest(&bytes), bytes: bytes.len() as u64 };
        self.put(&piece, &Source::Bytes(bytes), &Progress::none()).await
    }

    /// Stores the file at `path`, which was hashed as `piece`, and returns whether it is new to the store.
    pub(crate) async fn put_file(&self, piece: &Piece, path: &Path, progress: &Progress) -> Result<bool, Failure> {
        self.put(piece, &Source::File(path.to_owned()), progress).await
    }

    async fn put(&self, piece: &Piece, source: &Source, progress: &Progress) -> Result<bool, Failure> {
        let blob = BlobRef::from(piece);
        let mut patience = Patience::default();
        loop {
            let mut control = self.clone().into_control();
            let put = async {
                if control.has_blob(blob.clone()).await?.into_inner().there {
                    progress.add(piece.bytes);
                    return Ok(false);
                }
                let (to, chunks) = mpsc::channel(WAITING);
                let reading = read(source.clone(), to.clone(), progress.clone());
                // The stream ends once all is read. A read error aborts it, and nothing is stored.
                let whole = async {
                    reading.await.map_err(|_| Status::aborted("reading panicked"))??;
                    drop(to);
                    Ok(())
                };
                let (stored, ()) = tokio::try_join!(control.put_blob(ReceiverStream::new(chunks)), whole)?;
                if stored.into_inner() == blob { Ok(true) } else { Err(Status::data_loss("")) }
            };
            match put.await {
                Ok(stored) => return Ok(stored),
                Err(status) if status.code() == tonic::Code::DataLoss && status.message().is_empty() => {
                    let what = match source {
                        Source::File(path) => format!("`{}` changed during the upload: repeat it", path.display()),
                        Source::Bytes(_) => format!("blob `{}` changed during the upload: repeat it", piece.digest),
                    };
                    return Err(Failure::new(Exit::Usage, what));
                }
                Err(status) if lost(&status) && patience.more(self.address(), &status).await => {}
                Err(status) => return Err(self.failure(status)),
            }
        }
    }

    /// The failure of a download: `Damaged` if the store does not have the blob.
    fn missing(&self, status: Status) -> Failure {
        match status.code() {
            tonic::Code::NotFound => Failure::new(Exit::Damaged, status.message()),
            _ => self.failure(status),
        }
    }

    /// Opens the stream of a blob from byte `offset` on. It retries while the coordinator is busy.
    async fn open_blob(&mut self, piece: &Piece, offset: u64) -> Result<Streaming<BlobChunk>, Status> {
        let request = GetBlobRequest { blob: Some(piece.into()), offset };
        let mut patience = Patience::default();
        loop {
            match self.control().get_blob(request.clone()).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) if is_busy(&status) && patience.more(self.address(), &status).await => {}
                Err(status) => return Err(status),
            }
        }
    }

    /// Downloads a blob, and verifies its digest.
    pub(crate) async fn blob(&mut self, piece: &Piece) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::with_capacity(piece.bytes.min(1 << 28) as usize);
        let mut chunks = self.open_blob(piece, 0).await.map_err(|status| self.missing(status))?;
        loop {
            match chunks.message().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.data),
                Ok(None) => break,
                Err(status) => return Err(self.failure(status)),
            }
        }
        if Domain::Blob.digest(&bytes) == piece.digest {
            return Ok(bytes);
        }
        Err(Failure::new(Exit::Damaged, format!("blob `{}` arrived with wrong bytes", piece.digest)))
    }

    /// Checks that the coordinator's store has each of `pieces` undamaged. The coordinator reads all their bytes.
    ///
    /// # Errors
    /// `Damaged`, which names a blob that is missing or damaged.
    pub(crate) async fn check_stored(&self, pieces: impl Iterator<Item = &Piece>) -> Result<(), Failure> {
        let pieces: BTreeMap<Digest, &Piece> = pieces.map(|piece| (piece.digest, piece)).collect();
        let check = |piece: &Piece| {
            let (mut client, piece) = (self.clone(), piece.clone());
            async move {
                let there = client.control().has_blob(BlobRef::from(&piece)).await;
                if there.map_err(|status| client.failure(status))?.into_inner().there {
                    return Ok(());
                }
                Err(client.damage(&piece).await)
            }
        };
        at_once(pieces.into_values().map(check)).await.map(drop)
    }

    /// The failure that describes the damage of a blob.
    async fn damage(&mut self, piece: &Piece) -> Failure {
        let read = async {
            let mut chunks = self.open_blob(piece, 0).await?;
            // The stream ends with an error that describes the damage.
            while chunks.message().await?.is_some() {}
            Ok(())
        };
        match read.await {
            Err(status) => self.missing(status),
            Ok(()) => Failure::new(Exit::Damaged, format!("blob `{}` is damaged in the store", piece.digest)),
        }
    }

    /// `data` with each directory replaced by its files. Their list comes from the coordinator's store.
    pub(crate) async fn listed(&mut self, data: &[DataFile]) -> Result<Vec<DataFile>, Failure> {
        let mut files = Vec::new();
        for entry in data {
            if entry.is_directory() {
                let list = self.blob(&entry.piece()).await?;
                let below = listing::decode(entry, &list);
                files.extend(below.map_err(|error| Failure::caused(Exit::Unreachable, &error))?);
            } else {
                files.push(entry.clone());
            }
        }
        Ok(files)
    }

    /// Downloads blobs into `store`, several at a time, and verifies each. Blobs that `store` has are skipped, and an interrupted
    /// download is continued.
    pub(crate) async fn fetch(&self, pieces: &[Piece], store: &Path) -> Result<(), Failure> {
        let local = |error: &BlobError| Failure::caused(Exit::Local, error);
        // Equal contents are one blob.
        let pieces: BTreeMap<Digest, &Piece> = pieces.iter().map(|piece| (piece.digest, piece)).collect();
        let progress = Progress::bytes("fetching", pieces.values().map(|piece| piece.bytes).sum());
        let fetches = pieces.into_values();
        at_once(fetches.map(|piece| fetch(self.clone(), piece.clone(), store.to_owned(), progress.clone()))).await?;
        BlobStore::open(store).and_then(|store| store.sync()).map_err(|error| local(&error))
    }
}

/// Runs several of `tasks` at a time, and returns their results in the order of completion. When one fails, the others are cancelled, and
/// have ended when this returns: the caller may remove the directory that they wrote to.
pub(crate) async fn at_once<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = Result<T, Failure>> + Send + 'static>,
) -> Result<Vec<T>, Failure> {
    let mut under_way = JoinSet::new();
    let answers = join(&mut under_way, tasks).await;
    under_way.shutdown().await;
    answers
}

async fn join<T: Send + 'static>(
    under_way: &mut JoinSet<Result<T, Failure>>,
    mut tasks: impl Iterator<Item = impl Future<Output = Result<T, Failure>> + Send + 'static>,
) -> Result<Vec<T>, Failure> {
    let mut answers = Vec::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(task) = tasks.next()
        {
            under_way.spawn(task);
        }
        match under_way.join_next().await {
            Some(Ok(answer)) => answers.push(answer?),
            Some(Err(_)) => return Err(Failure::new(Exit::Local, "a transfer panicked")),
            None => return Ok(answers),
        }
    }
}

async fn fetch(mut client: Client, piece: Piece, store: PathBuf, progress: Progress) -> Result<(), Failure> {
    let local = |error: &BlobError| Failure::caused(Exit::Local, error);
    let store = BlobStore::open(&store).map_err(|error| local(&error))?;
    let mut patience = Patience::default();
    loop {
        if store.has(&piece) {
            progress.add(piece.bytes);
            return Ok(());
        }
        // It waits for another writer, and reads the bytes of an earlier attempt.
        let mut part = block_in_place(|| store.part(&piece)).map_err(|error| local(&error))?;
        progress.add(part.bytes());
        let mut get = async || -> Result<Result<(), BlobError>, Status> {
            let mut chunks = client.open_blob(&piece, part.bytes()).await?;
            while let Some(chunk) = chunks.message().await? {
                progress.add(chunk.data.len() as u64);
                if let Err(error) = part.write(&chunk.data) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        };
        match get().await {
            Ok(written) => {
                return written.and_then(|()| block_in_place(|| part.finish())).map_err(|error| match error {
                    BlobError::Corrupt { .. } => Failure::caused(Exit::Damaged, &error),
                    _ => local(&error),
                });
            }
            Err(status) if lost(&status) && !is_busy(&status) && patience.more(client.address(), &status).await => {}
            Err(status) => return Err(client.missing(status)),
        }
    }
}

/// Reads `source` on a blocking thread, and sends it to `to` as fast as chunks are received.
fn read(source: Source, to: mpsc::Sender<BlobChunk>, progress: Progress) -> JoinHandle<Result<(), Status>> {
    let send = move |data: &[u8]| {
        progress.add(data.len() as u64);
        to.blocking_send(BlobChunk { data: data.to_vec() }).is_ok()
    };
    tokio::task::spawn_blocking(move || {
        let path = match source {
            Source::Bytes(bytes) => {
                // If the receiver is gone, the upload fails with an error of its own.
                let _taken = bytes.chunks(CHUNK_BYTES).all(send);
                return Ok(());
            }
            Source::File(path) => path,
        };
        let read = || -> std::io::Result<()> {
            let mut file = File::open(&path)?;
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            loop {
                chunk.clear();
                (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
                if chunk.is_empty() || !send(&chunk) {
                    return Ok(());
                }
            }
        };
        read().map_err(|error| Status::invalid_argument(format!("cannot read `{}`: {error}", path.display())))
    })
}

#[cfg(test)]
mod tests;
