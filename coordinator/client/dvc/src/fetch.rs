//! From the remote into the cache, and from the cache into the work tree.
//!
//! Every file is verified before it gets its name, in the cache and in the work tree. What is in the cache is not fetched
//! again, so that a fetch that was cut off goes on with the first file that it did not finish.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::cache::{self, Cache, Object};
use crate::config::Config;
use crate::error::{DvcError, io_error};
use crate::find::{Recorded, Tracked};
use crate::hash::Md5;
use crate::listing::Entry;
use crate::remote::Remote;
use crate::state::{self, CONCURRENCY, Presence, blocking};

/// How far a fetch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Files that are where they should be, those that were there already included.
    pub files: usize,
    /// Files in all; 0 before a directory's listing has come.
    pub num_files: usize,
    /// Bytes that the remote sent.
    pub bytes: u64,
}

/// What a fetch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Every file that was asked for, by path; all are in the cache now.
    pub files: Vec<FetchedFile>,
    /// Files written into the work tree.
    pub num_written: usize,
    /// Objects that came from the remote, a directory's listing among them.
    pub num_downloaded: usize,
    /// Their bytes.
    pub bytes_downloaded: u64,
    /// Files of the cache whose contents were not those of their names, and that were fetched anew.
    pub replaced: Vec<PathBuf>,
}

/// A file of an output, in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    /// From the output; empty if the output is the file.
    pub path: String,
    /// Its MD5.
    pub md5: Md5,
    /// Its bytes.
    pub size: u64,
    /// Where the cache has it, read-only.
    pub cache_path: PathBuf,
}

impl Tracked {
    /// Makes the work tree's copy right: what is missing comes from the cache, or else from the remote into the cache,
    /// several files at a time. A file that is there and right is copied into the cache if the cache lacks it.
    ///
    /// A cache file that a file of the work tree is made from is verified. If it is corrupt it is fetched anew and named in
    /// [`Fetched::replaced`]; without a remote that has it, it stays, and the error names it.
    /// # Errors
    /// One for the first file that failed, when nothing is under way any more; what succeeded stays. `Changed`, before
    /// anything is written, if a file is there with other contents: nothing of the work tree is ever
    /// overwritten. `BehindLink`, also before that, if a directory on the way to a file is a symbolic link. `MissingObject` if neither cache nor remote has a file.
    pub fn fetch<'a>(
        &'a self,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Fetched, DvcError>> {
        Box::pin(async move {
            let recorded = self.recorded();
            // Before anything is fetched, as of the files of a directory below.
            let within = recorded.output.join("any");
            recorded.no_link_to(if recorded.is_directory { &within } else { &recorded.output })?;
            let fetch = Fetch::new(recorded, progress)?;
            let files = fetch.files().await?;
            for file in &files {
                recorded.no_link_to(&state::in_work_tree(recorded, file))?;
            }
            let states = state::states(recorded, files.clone()).await?;
            if let Some((path, expected, found)) = states.iter().find_map(|file| match file.presence {
                Presence::Other { expected, found } => Some((file.path.clone(), expected, found)),
                Presence::Present | Presence::Missing => None,
            }) {
                return Err(DvcError::Changed { path, expected, found });
            }
            if recorded.is_directory && recorded.path == recorded.output {
                // It may have no file at all, and is to be there all the same.
                let dir = &recorded.output;
                fs::create_dir_all(dir).map_err(io_error("make", dir))?;
            }
            let mut by_md5: BTreeMap<Md5, Vec<(PathBuf, Presence)>> = BTreeMap::new();
            for file in states {
                by_md5.entry(file.md5).or_default().push((file.path, file.presence));
            }
            let copies = by_md5.into_iter().map(|(md5, copies)| fetch.bring_to_work_tree(md5, copies));
            let written = until_first_error(copies).await?;
            fetch.finish(files, written)
        })
    }
}

impl Recorded {
    /// Gets every file into the cache, verified, and leaves the work tree alone.
    ///
    /// What the cache has is read and verified; what is corrupt there is fetched anew and named in [`Fetched::replaced`].
    /// # Errors
    /// `MissingObject` if neither cache nor remote has a file.
    pub fn fetch_to_cache<'a>(
        &'a self,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Fetched, DvcError>> {
        Box::pin(async move {
            let fetch = Fetch::new(self, progress)?;
            let files = fetch.files().await?;
            let mut by_md5: BTreeMap<Md5, Vec<PathBuf>> = BTreeMap::new();
            for file in &files {
                by_md5.entry(file.md5).or_default().push(state::in_work_tree(self, file));
            }
            until_first_error(by_md5.into_iter().map(|(md5, paths)| fetch.bring_to_cache(md5, paths))).await?;
            fetch.finish(files, 0)
        })
    }
}

/// Several at a time, and the sum of what they answer. After an error none is begun, and those under way are finished:
/// nothing is written any more when it is returned.
async fn until_first_error<F: Future<Output = Result<usize, DvcError>>>(
    mut tasks: impl Iterator<Item = F>,
) -> Result<usize, DvcError> {
    let mut running = FuturesUnordered::new();
    let mut answer = Ok(0);
    loop {
        while answer.is_ok() && running.len() < CONCURRENCY {
            let Some(task) = tasks.next() else { break };
            running.push(task);
        }
        match (running.next().await, &mut answer) {
            (None, _) => return answer,
            (Some(Ok(number)), Ok(sum)) => *sum += number,
            (Some(Err(error)), Ok(_)) => answer = Err(error),
            (Some(_), Err(_)) => {}
        }
    }
}

/// A fetch that is under way.
struct Fetch<'a> {
    recorded: &'a Recorded,
    config: Config,
    cache: Cache,
    remote: OnceLock<Remote>,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    num_files: OnceLock<usize>,
    done_files: AtomicUsize,
    downloaded: AtomicUsize,
    bytes: AtomicU64,
    replaced: std::sync::Mutex<Vec<PathBuf>>,
}

impl<'a> Fetch<'a> {
    fn new(recorded: &'a Recorded, progress: &'a (dyn Fn(Progress) + Send + Sync)) -> Result<Self, DvcError> {
        let config = Config::read(&recorded.root)?;
        let cache = Cache::of(&config, recorded.generation);
        Ok(Self {
            recorded,
            config,
            cache,
            remote: OnceLock::new(),
            progress,
            num_files: OnceLock::new(),
            done_files: AtomicUsize::new(0),
            downloaded: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            replaced: std::sync::Mutex::default(),
        })
    }

    /// The files that were asked for. A directory's listing is in the cache afterwards.
    async fn files(&self) -> Result<Vec<Entry>, DvcError> {
        let recorded = self.recorded;
        let object = Object { md5: recorded.md5, is_listing: true };
        let files = match state::known_files(recorded, &self.cache).await? {
            Some((files, None)) => files,
            Some((files, Some(listing))) => {
                let cache = self.cache.clone();
                let put = move || {
                    let file = cache.new_file()?;
                    fs::write(file.path(), listing.to_json()).map_err(io_error("write", file.path()))?;
                    cache.put(file, object)
                };
                blocking(put).await?.expect("the listing was found by this md5");
                files
            }
            None => {
                self.ensure(object, &recorded.output).await?;
                let (of, cache) = (recorded.clone(), self.cache.clone());
                let listing = blocking(move || state::cached_listing(&of, &cache, object)).await?;
                state::select(recorded, &listing.unwrap_or_default())?
            }
        };
        self.num_files.get_or_init(|| files.len());
        Ok(files)
    }

    /// Makes every copy of the same contents right. The answer is how many were written.
    async fn bring_to_work_tree(&self, md5: Md5, copies: Vec<(PathBuf, Presence)>) -> Result<usize, DvcError> {
        let object = Object { md5, is_listing: false };
        let mut written = 0;
        let num_copies = copies.len();
        let (present, missing): (Vec<_>, Vec<_>) =
            copies.into_iter().partition(|(_, presence)| *presence == Presence::Present);
        if let Some((path, _)) = present.into_iter().next() {
            let cache = self.cache.clone();
            blocking(move || {
                if cache.has(object) {
                    return Ok(());
                }
                let changed = |found| DvcError::Changed { path: path.clone(), expected: md5, found };
                cache.put_copy(&path, object)?.map_err(changed)
            })
            .await?;
        }
        for (path, _) in missing {
            if !self.cache.has(object) {
                self.ensure(object, &path).await?;
            }
            // The copy is verified, so the cache is read again only where it is wrong.
            if self.check_out(object, &path).await?.is_err() {
                self.ensure(object, &path).await?;
                let cache_path = self.cache.path(object);
                let changes = |_| io_error("copy", &cache_path)(io::ErrorKind::InvalidData.into());
                self.check_out(object, &path).await?.map_err(changes)?;
            }
            written += 1;
        }
        self.done(num_copies);
        Ok(written)
    }

    /// The same without the work tree, where nothing is written.
    async fn bring_to_cache(&self, md5: Md5, paths: Vec<PathBuf>) -> Result<usize, DvcError> {
        let first = paths.first().map_or(self.recorded.output.as_path(), PathBuf::as_path);
        self.ensure(Object { md5, is_listing: false }, first).await?;
        self.done(paths.len());
        Ok(0)
    }

    async fn check_out(&self, object: Object, to: &Path) -> Result<Result<(), Md5>, DvcError> {
        let (from, to) = (self.cache.path(object), to.to_owned());
        let (generation, is_executable) = (self.recorded.generation, self.recorded.is_executable);
        let tmp = self.recorded.root.join(".dvc/tmp");
        // Fetching may have taken hours since it was looked at first.
        self.recorded.no_link_to(&to)?;
        blocking(move || cache::check_out((&from, object.md5, generation), &to, &tmp, is_executable)).await
    }

    /// Gets an object into the cache, verified. `path` is what has it in the work tree.
    async fn ensure(&self, object: Object, path: &Path) -> Result<(), DvcError> {
        let cache = self.cache.clone();
        match blocking(move || cache.hash(object)).await? {
            Some(found) if found == object.md5 => Ok(()),
            None => self.download(object, path).await,
            Some(found) => {
                let cache_path = self.cache.path(object);
                self.download(object, path).await.map_err(|source| DvcError::CorruptCache {
                    path: cache_path.clone(),
                    found,
                    source: Box::new(source),
                })?;
                self.replaced.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(cache_path);
                Ok(())
            }
        }
    }

    async fn download(&self, object: Object, path: &Path) -> Result<(), DvcError> {
        let remote = self.remote()?;
        let relative = object.relative_path(self.recorded.generation);
        let cache = self.cache.clone();
        let file = blocking(move || cache.new_file()).await?;
        let came = |bytes| {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.tell();
        };
        let (path, md5, shown) = (path.to_owned(), object.md5, remote.name_of(&relative));
        if !remote.get(&relative, file.path(), &came).await? {
            return Err(DvcError::MissingObject { path, md5, remote: remote.name.clone(), object: shown });
        }
        let cache = self.cache.clone();
        let put = blocking(move || cache.put(file, object)).await?;
        self.downloaded.fetch_add(1, Ordering::Relaxed);
        let remote = remote.name.clone();
        put.map_err(|found| DvcError::CorruptObject { path, md5, found, remote, object: shown })
    }

    /// Opened when it is first needed: a fetch from the cache needs none.
    fn remote(&self) -> Result<&Remote, DvcError> {
        if let Some(remote) = self.remote.get() {
            return Ok(remote);
        }
        let remote = Remote::open(&self.config.remote(self.recorded.remote.as_deref())?)?;
        Ok(self.remote.get_or_init(|| remote))
    }

    fn done(&self, files: usize) {
        self.done_files.fetch_add(files, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        (self.progress)(Progress {
            files: self.done_files.load(Ordering::Relaxed),
            num_files: self.num_files.get().copied().unwrap_or_default(),
            bytes: self.bytes.load(Ordering::Relaxed),
        });
    }

    fn finish(self, files: Vec<Entry>, num_written: usize) -> Result<Fetched, DvcError> {
        let file = |entry: Entry| {
            let cache_path = self.cache.path(Object { md5: entry.md5, is_listing: false });
            let size = fs::metadata(&cache_path).map_err(io_error("read", &cache_path))?.len();
            Ok(FetchedFile { path: entry.path, md5: entry.md5, size, cache_path })
        };
        Ok(Fetched {
            files: files.into_iter().map(file).collect::<Result<_, DvcError>>()?,
            num_written,
            num_downloaded: self.downloaded.into_inner(),
            bytes_downloaded: self.bytes.into_inner(),
            replaced: self.replaced.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner),
        })
    }
}
