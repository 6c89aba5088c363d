//! The store's own thread: disk writes block, and the event loop must not.

use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::thread;

use lockstep_common::chain;
use lockstep_common::manifest::Piece;
use lockstep_core::outcome::{Effect, ToArchive};
use lockstep_core::replica::{Persist, Recovered};
use lockstep_host::durable::DirLock;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::archive::Archive;
use super::blocks::{BlockDatabase, BlockReader};
use super::error::StoreError;
use super::log::{FORMAT, StateDatabase};
use super::news::News;
use super::upgrade::Put;

/// The event loop awaits each batch before it sends another, so there is never more than one.
const QUEUE: usize = 1;

type Job = (Persist, oneshot::Sender<Result<(), StoreError>>);

/// Handle of the open store. When it is dropped the thread ends, after the batch it is writing.
#[derive(Debug)]
pub struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    reader: BlockReader,
    archive: Archive,
    news: News,
}

/// A data directory that was taken for this process, and whose state may be of an earlier format.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    lock: DirLock,
    state: StateDatabase,
    format: u64,
}

impl DataDir {
    /// Takes the data directory.
    ///
    /// # Errors
    /// `Lock` if another coordinator uses it, `Format` if another version wrote it, `Open` if a file of it is missing.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let lock = DirLock::acquire(dir)?;
        let of_a_start = ["reports.redb", "starts"].into_iter().find(|name| dir.join(name).exists());
        if let (false, Some(other)) = (is_there(dir, "state.redb"), of_a_start) {
            return Err(missing(dir, "state.redb", &format!("`{other}` is there: the runs")));
        }
        let (state, format) = StateDatabase::open(dir)?;
        // Before an empty one is made in its place.
        if state.counted()? > 0 && !is_there(dir, "reports.redb") {
            return Err(missing(dir, "reports.redb", "`state.redb` has counted reports: the records"));
        }
        Ok(Self { dir: dir.to_owned(), lock, state, format })
    }

    /// Blobs of which the store that was used has at least one, if there are any.
    pub fn known_blobs(&self) -> Result<Vec<Piece>, StoreError> {
        if self.format != FORMAT {
            return self.state.known_blobs(self.format);
        }
        Ok(self.state.recover()?.state.last_checkpoints().map(|made| made.manifest.clone()).collect())
    }
}

impl Store {
    /// Reads what is in the data directory, and begins to write there. One of an earlier format is rewritten: what is a blob today is `put`
    /// into the store.
    ///
    /// # Errors
    /// `Damaged` if its files are of different times; as [`StoreError`] says.
    pub fn open(data: DataDir, put: Put<'_>) -> Result<(Self, Recovered), StoreError> {
        let DataDir { dir, lock, state, format } = data;
        let state = if format == FORMAT { state } else { state.upgraded(format, put)? };
        let recovered = state.recover()?;
        state.index_archive(&recovered.state)?;
        let last = recovered.entries.last().map_or(recovered.truncated.index, |entry| entry.index);
        let blocks = BlockDatabase::open(&dir, state.counted()?..=last)?;
        let (reader, archive) = (blocks.reader(), state.archive());
        let (jobs, queue) = mpsc::channel(QUEUE);
        let news = News::default();
        let told = news.clone();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(queue, state, blocks, &told, lock))
            .map_err(|error| StoreError::open(&dir, redb::Error::from(redb::StorageError::Io(error))))?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread), reader, archive, news }, recovered))
    }

    /// Writes `persist`, durably if it says so. Report blocks go first: they are written again when the entries that
    /// brought them are replayed, so a crash in between loses nothing and doubles nothing.
    pub async fn append(&self, persist: Persist) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(StoreError::Stopped)?;
        jobs.send((persist, done)).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Which runs have new report blocks.
    pub fn news(&self) -> News {
        self.news.clone()
    }

    /// Reads runs that have left the state, beside the writer.
    pub fn archive(&self) -> Archive {
        self.archive.clone()
    }

    /// Reads report blocks, beside the writer.
    pub fn reader(&self) -> BlockReader {
        self.reader.clone()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// Whether `dir` has file `name`, with anything in it.
fn is_there(dir: &Path, name: &str) -> bool {
    fs::metadata(dir.join(name)).is_ok_and(|metadata| metadata.len() > 0)
}

/// A directory that was used has lost file `name`; `why` says by what that is known, and ends with what is in the file.
fn missing(dir: &Path, name: &str, why: &str) -> StoreError {
    let said =
        format!("it is missing or empty, and {why} of this directory are in it; put it back, or use another directory");
    StoreError::open(&dir.join(name), redb::StorageError::Io(io::Error::other(said)))
}

/// Writes until the handle is gone or a write fails: what follows an error could otherwise be durable without it.
fn write_all(
    mut queue: mpsc::Receiver<Job>,
    state: StateDatabase,
    mut blocks: BlockDatabase,
    news: &News,
    _lock: DirLock,
) {
    // A database that is closed becomes durable. The state says which blocks were written, so it is closed after they are, or
    // not at all; then the log brings them again.
    let state = ManuallyDrop::new(state);
    while let Some((persist, done)) = queue.blocking_recv() {
        let result = blocks.write(&persist.effects, persist.sync).and_then(|()| state.write(&persist));
        let failed = result.is_err();
        if !failed {
            news.add(persist.effects.iter().map(|(_, effect)| match effect {
                Effect::AppendBlock { run, .. }
                | Effect::Rewind { run, .. }
                | Effect::Archive(ToArchive { run, .. }) => run,
            }));
        }
        // The loop may have given up waiting; what was written stays written.
        let _ = done.send(result);
        if failed {
            break;
        }
    }
    match blocks.write(&[], true) {
        Ok(()) => drop(ManuallyDrop::into_inner(state)),
        Err(error) => error!("{}: the next start writes them again from the log", chain(&error)),
    }
    news.close();
}

#[cfg(test)]
mod tests {
    use lockstep_common::RunId;

    use super::super::testing::{entry, opened, persist};
    use super::*;

    #[tokio::test]
    async fn what_was_appended_is_there_after_reopening_and_a_second_owner_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (store, recovered) = opened(dir.path()).unwrap();
        assert!(recovered.entries.is_empty());
        for index in 1..=50 {
            store.append(persist(index, vec![entry(index, 1)])).await.unwrap();
        }
        assert!(matches!(opened(dir.path()), Err(StoreError::Lock(_))));
        drop(store);
        let (_store, recovered) = opened(dir.path()).unwrap();
        assert!(recovered.entries.iter().map(|entry| entry.index).eq(1..=50));
    }

    #[tokio::test]
    async fn files_of_different_times_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let reports = dir.path().join("reports.redb");
        let run: RunId = "0123456789".parse().unwrap();
        let (mut copies, mut states) = (Vec::new(), Vec::new());
        for index in 1..=3 {
            let (store, _) = opened(dir.path()).unwrap();
            let effect = Effect::AppendBlock { run: run.clone(), process: 0, bytes: vec![7] };
            // Lazily: it is durable when the store was closed in order.
            let effects = vec![(index, effect)];
            store.append(Persist { sync: false, effects, ..persist(index, vec![entry(index, 1)]) }).await.unwrap();
            drop(store);
            copies.push(std::fs::read(&reports).unwrap());
            states.push(std::fs::read(dir.path().join("state.redb")).unwrap());
        }
        let refused = |bytes: Option<&Vec<u8>>| {
            match bytes {
                Some(bytes) => std::fs::write(&reports, bytes).unwrap(),
                None => std::fs::remove_file(&reports).unwrap(),
            }
            opened(dir.path()).map(drop).map_err(|error| chain(&error))
        };
        let older = refused(Some(&copies[1])).unwrap_err();
        assert!(older.contains("reports.redb` is damaged: it is older than `state.redb`"), "{older}");
        assert!(older.contains("up to log index 3, and this one ends at 2"), "{older}");
        let missing = refused(None).unwrap_err();
        let words = "reports.redb`: I/O error: it is missing or empty, and `state.redb` has counted reports";
        assert!(missing.contains(words), "{missing}");
        assert!(!reports.exists(), "none is made in its place");
        let empty = refused(Some(&Vec::new())).unwrap_err();
        assert!(empty.contains(words), "{empty}");
        refused(Some(&copies[2])).unwrap();
        // The other way round.
        let state = dir.path().join("state.redb");
        std::fs::write(&state, &states[1]).unwrap();
        let newer = refused(Some(&copies[2])).unwrap_err();
        assert!(newer.contains("reports.redb` is damaged: it is newer than `state.redb`"), "{newer}");
        assert!(newer.contains("whose log ends at index 2, and this one has reports up to 3"), "{newer}");
        std::fs::remove_file(&state).unwrap();
        std::fs::write(&state, b"").unwrap();
        let empty = opened(dir.path()).map(drop).map_err(|error| chain(&error)).unwrap_err();
        assert!(empty.contains("it is missing or empty"), "{empty}");
        std::fs::remove_file(&state).unwrap();
        let missing = opened(dir.path()).map(drop).map_err(|error| chain(&error)).unwrap_err();
        assert!(
            missing.contains("state.redb`") && missing.contains("it is missing or empty, and `reports.redb` is there"),
            "{missing}"
        );
        // By what else it is known that a coordinator was started here.
        std::fs::remove_file(&reports).unwrap();
        std::fs::write(dir.path().join("starts"), b"a\n").unwrap();
        let missing = opened(dir.path()).map(drop).map_err(|error| chain(&error)).unwrap_err();
        assert!(missing.contains("it is missing or empty, and `starts` is there"), "{missing}");
        assert!(!state.exists(), "none is made in its place");
    }

    #[tokio::test]
    async fn a_directory_that_is_removed_or_replaced_takes_nothing_more() {
        for file in ["state.redb", "reports.redb"] {
            let dir = tempfile::tempdir().unwrap();
            let (store, _) = opened(dir.path()).unwrap();
            let effect = Effect::AppendBlock { run: "0123456789".parse().unwrap(), process: 0, bytes: vec![7] };
            let persist =
                |index| Persist { effects: vec![(index, effect.clone())], ..persist(index, vec![entry(index, 1)]) };
            store.append(persist(1)).await.unwrap();
            std::fs::rename(dir.path().join(file), dir.path().join("away")).unwrap();
            let refused = chain(&store.append(persist(2)).await.unwrap_err());
            assert!(refused.contains(file) && refused.contains("it was removed while it was in use"), "{refused}");
        }
    }
}
