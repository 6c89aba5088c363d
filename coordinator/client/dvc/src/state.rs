//! Is the work tree's copy there and right? Answered from the disk alone, without a remote.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::cache::{Cache, Object};
use crate::config::Config;
use crate::error::{DvcError, io_error};
use crate::find::{Recorded, Tracked};
use crate::hash::{Generation, Md5};
use crate::listing::{Entry, Listing};

/// How many files are read at a time: enough for a disk with a queue, few enough for one with an arm.
pub(crate) const CONCURRENCY: usize = 8;

/// What the work tree has of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// File by file, in order of their paths. Files of a directory that DVC did not record are not mentioned.
    Files(Vec<FileState>),
    /// A directory that is not whole, and whose listing is not in the cache: which files it should have is not known before
    /// a fetch. Also an empty directory that is not there.
    Unlisted,
}

/// A file of an output, in the work tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// In the work tree.
    pub path: PathBuf,
    /// What DVC recorded.
    pub md5: Md5,
    /// What is there.
    pub presence: Presence,
}

/// Whether a file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// With the contents that DVC recorded.
    Present,
    /// It is not.
    Missing,
    /// With other contents.
    Other {
        /// What DVC recorded.
        expected: Md5,
        /// What is there.
        found: Md5,
    },
}

impl State {
    /// Whether every file is there and right.
    pub fn is_present(&self) -> bool {
        matches!(self, Self::Files(files) if files.iter().all(|file| file.presence == Presence::Present))
    }
}

impl Tracked {
    /// Reads every file that was asked for, and compares it with what DVC recorded.
    /// # Errors
    /// `NotInListing` if the path lies in a tracked directory and DVC knows of no such file there; `Occupied` if a directory
    /// is in a file's place, or the other way round.
    pub fn check(&self) -> BoxFuture<'_, Result<State, DvcError>> {
        Box::pin(async move {
            let recorded = self.recorded();
            let cache = Cache::of(&Config::read(&recorded.root)?, recorded.generation);
            match known_files(recorded, &cache).await? {
                Some((files, _)) if files.is_empty() && !recorded.output.is_dir() => Ok(State::Unlisted),
                Some((files, _)) => Ok(State::Files(states(recorded, files).await?)),
                None => Ok(State::Unlisted),
            }
        })
    }
}

/// Which files were asked for, from the cache or from the work tree, with a listing that the cache lacks; `None` if only
/// a remote can tell.
pub(crate) async fn known_files(
    recorded: &Recorded,
    cache: &Cache,
) -> Result<Option<(Vec<Entry>, Option<Listing>)>, DvcError> {
    if !recorded.is_directory {
        return Ok(Some((vec![Entry { path: String::new(), md5: recorded.md5 }], None)));
    }
    let object = Object { md5: recorded.md5, is_listing: true };
    let (cache, of) = (cache.clone(), recorded.clone());
    if let Some(listing) = blocking(move || cached_listing(&of, &cache, object)).await? {
        return Ok(Some((select(recorded, &listing)?, None)));
    }
    let (output, generation, size) = (recorded.output.clone(), recorded.generation, recorded.size);
    // A directory that cannot be read is not whole, which is all that matters here.
    let there = blocking(move || Ok(Listing::of_directory(&output, generation, size).ok().flatten())).await?;
    match there.filter(|listing| listing.md5() == recorded.md5) {
        Some(listing) => Ok(Some((select(recorded, &listing)?, Some(listing)))),
        None => Ok(None),
    }
}

/// The listing in the cache, if it is whole.
pub(crate) fn cached_listing(recorded: &Recorded, cache: &Cache, object: Object) -> Result<Option<Listing>, DvcError> {
    if cache.hash(object)? != Some(object.md5) {
        return Ok(None);
    }
    let path = cache.path(object);
    let json = fs::read(&path).map_err(io_error("read", &path))?;
    let broken = |reason| DvcError::BadListing { path: recorded.output.clone(), md5: object.md5, reason };
    Listing::parse(&json).map(Some).map_err(broken)
}

/// The files of a directory that were asked for.
pub(crate) fn select(recorded: &Recorded, listing: &Listing) -> Result<Vec<Entry>, DvcError> {
    let inside = recorded.inside()?;
    let is_asked = |entry: &&Entry| {
        inside.is_empty()
            || entry.path.strip_prefix(&inside).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let files: Vec<Entry> = listing.entries().iter().filter(is_asked).cloned().collect();
    if files.is_empty() && !inside.is_empty() {
        return Err(DvcError::NotInListing { path: recorded.path.clone(), output: recorded.output.clone() });
    }
    Ok(files)
}

/// What is there of `files`, in their order.
pub(crate) async fn states(recorded: &Recorded, files: Vec<Entry>) -> Result<Vec<FileState>, DvcError> {
    let generation = recorded.generation;
    let checks = files.into_iter().map(|file| {
        let path = in_work_tree(recorded, &file);
        blocking(move || {
            let presence = presence(&path, file.md5, generation)?;
            Ok(FileState { path, md5: file.md5, presence })
        })
    });
    stream::iter(checks).buffered(CONCURRENCY).try_collect().await
}

/// Where a file of an output lies.
pub(crate) fn in_work_tree(recorded: &Recorded, file: &Entry) -> PathBuf {
    if file.path.is_empty() { recorded.output.clone() } else { recorded.output.join(&file.path) }
}

fn presence(path: &Path, expected: Md5, generation: Generation) -> Result<Presence, DvcError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            let found = generation.hash_file(path).map_err(io_error("read", path))?;
            Ok(if found == expected { Presence::Present } else { Presence::Other { expected, found } })
        }
        Ok(_) => Err(DvcError::Occupied { path: path.to_owned(), expected: "a file" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Presence::Missing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let occupied = path.ancestors().skip(1).find(|dir| dir.exists()).unwrap_or(path);
            Err(DvcError::Occupied { path: occupied.to_owned(), expected: "a directory" })
        }
        Err(source) => Err(io_error("read", path)(source)),
    }
}

/// Runs what reads or writes files where it holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DvcError> + Send + 'static,
) -> Result<T, DvcError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
