//! The thread that writes the databases, because disk writes block and the event loop must not.

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

/// The event loop awaits each write before it sends the next, so there is never more than one.
const QUEUE: usize = 1;

type Job = (Persist, oneshot::Sender<Result<(), StoreError>>);

/// Handle of the open databases. Dropping it waits for the current write, and then ends the thread.
#[derive(Debug)]
pub struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    reader: BlockReader,
    archive: Archive,
    news: News,
}

/// A data directory that is locked for this process. Its state may have an earlier format.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    lock: DirLock,
    state: StateDatabase,
    format: u64,
}

impl DataDir {
    /// Locks the data directory, and opens its state database.
    ///
    /// # Errors
    /// `Lock` if another coordinator uses the directory, `Format` if this version does not read its format, `Open` if one of its files is
    /// missing.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let lock = DirLock::acquire(dir)?;
        let of_a_start = ["reports.redb", "starts"].into_iter().find(|name| dir.join(name).exists());
        if let (false, Some(other)) = (is_there(dir, "state.redb"), of_a_start) {
            return Err(missing(dir, "state.redb", &format!("`{other}` exists: the runs")));
        }
        let (state, format) = StateDatabase::open(dir)?;
        // Before an empty database is created in its place.
        if state.counted()? > 0 && !is_there(dir, "reports.redb") {
            return Err(missing(dir, "reports.redb", "`state.redb` has recorded reports: the records"));
        }
        Ok(Self { dir: dir.to_owned(), lock, state, format })
    }

    /// Blobs of committed checkpoints. The coordinator's blob store has at least one of them, unless there are none.
    pub fn known_blobs(&self) -> Result<Vec<Piece>, StoreError> {
        if self.format != FORMAT {
            return self.state.known_blobs(self.format);
        }
        Ok(self.state.recover()?.state.last_checkpoints().map(|made| made.manifest.clone()).collect())
    }
}

impl Store {
    /// Recovers the contents of the data directory, and starts the writing thread.
    ///
    /// A state of an earlier format is converted; manifests, which are blobs in the current format, are written with `put`.
    ///
    /// # Errors
    /// `Damaged` if a file is corrupt, or if the files are from different times; `Unapplied` and `Upgrade` for an earlier format.
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

    /// Writes `persist`, durably if `persist.sync` is set.
    ///
    /// Report blocks are written first. After a crash in between, the replay of the log writes the same blocks again, so that none is lost
    /// or duplicated.
    ///
    /// # Errors
    /// `Write` if the write failed; `Stopped` after an earlier failure.
    pub async fn append(&self, persist: Persist) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(StoreError::Stopped)?;
        jobs.send((persist, done)).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// The runs with new report blocks.
    pub fn news(&self) -> News {
        self.news.clone()
    }

    /// A reader of archived runs, which can be used while the store writes.
    pub fn archive(&self) -> Archive {
        self.archive.clone()
    }

    /// A reader of report blocks, which can be used while the store writes.
    pub fn reader(&self) -> BlockReader {
        self.reader.clone()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends because its queue is closed. A panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Whether `dir` has a file `name` that is not empty.
fn is_there(dir: &Path, name: &str) -> bool {
    fs::metadata(dir.join(name)).is_ok_and(|metadata| metadata.len() > 0)
}

/// File `name` of a used directory is missing. `why` is the evidence that the directory was used, a colon, and the contents of the file.
fn missing(dir: &Path, name: &str, why: &str) -> StoreError {
    let said =
        format!("it is missing or empty, but {why} of this directory are in it; restore it, or use another directory");
    StoreError::open(&dir.join(name), redb::StorageError::Io(io::Error::other(said)))
}

/// Writes until the handle is dropped or a write fails. After a failure, a later write could become durable without the failed one.
fn write_all(
    mut queue: mpsc::Receiver<Job>,
    state: StateDatabase,
    mut blocks: BlockDatabase,
    news: &News,
    _lock: DirLock,
) {
    // Closing a database makes its writes durable. The state database records which blocks were written, so it is closed only after the
    // blocks are durable. Otherwise it is not closed, and the next start writes the blocks again from the log.
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
        // An error means that the event loop no longer waits.
        let _ = done.send(result);
        if failed {
            break;
        }
    }
    match blocks.write(&[], true) {
        Ok(()) => drop(ManuallyDrop::into_inner(state)),
        Err(error) => error!("{}; the next start writes the missing reports again from the log", chain(&error)),
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
            // Not synced: the orderly close makes it durable.
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
        assert!(older.contains("up to log index 3, but this file ends at 2"), "{older}");
        let missing = refused(None).unwrap_err();
        let words = "reports.redb`: I/O error: it is missing or empty, but `state.redb` has recorded reports";
        assert!(missing.contains(words), "{missing}");
        assert!(!reports.exists(), "no empty file is created in its place");
        let empty = refused(Some(&Vec::new())).unwrap_err();
        assert!(empty.contains(words), "{empty}");
        refused(Some(&copies[2])).unwrap();
        // The other way round: an older state database.
        let state = dir.path().join("state.redb");
        std::fs::write(&state, &states[1]).unwrap();
        let newer = refused(Some(&copies[2])).unwrap_err();
        assert!(newer.contains("reports.redb` is damaged: it is newer than `state.redb`"), "{newer}");
        assert!(newer.contains("whose log ends at index 2, but this file has reports up to 3"), "{newer}");
        std::fs::remove_file(&state).unwrap();
        std::fs::write(&state, b"").unwrap();
        let empty = opened(dir.path()).map(drop).map_err(|error| chain(&error)).unwrap_err();
        assert!(empty.contains("it is missing or empty"), "{empty}");
        std::fs::remove_file(&state).unwrap();
        let missing = opened(dir.path()).map(drop).map_err(|error| chain(&error)).unwrap_err();
        assert!(
            missing.contains("state.redb`") && missing.contains("it is missing or empty, but `reports.redb` exists"),
            "{missing}"
        );
        // The file `starts` is evidence of an earlier start, too.
        std::fs::remove_file(&reports).unwrap();
        std::fs::write(dir.path().join("starts"), b"a\n").unwrap();
        let missing = opened(dir.path()).map(drop).map_err(|error| chain(&error)).unwrap_err();
        assert!(missing.contains("it is missing or empty, but `starts` exists"), "{missing}");
        assert!(!state.exists(), "no empty file is created in its place");
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
