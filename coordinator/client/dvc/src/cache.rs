//! DVC's cache: read-only files named by the MD5 of their contents.
//!
//! A file gets its name only when its contents have been verified, by a rename. What is unfinished lies in the cache's
//! top directory under a name that DVC takes for no object.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::config::Config;
use crate::error::{DvcError, io_error};
use crate::find;
use crate::hash::{Generation, Md5};

/// As DVC protects what is in its cache.
const OBJECT_MODE: u32 = 0o444;
/// Of directories in a cache that a group shares: what is made in them belongs to the group too.
const SHARED_DIRECTORY_MODE: u32 = 0o2775;

/// The name of contents: a file's, or a directory's listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Object {
    pub(crate) md5: Md5,
    pub(crate) is_listing: bool,
}

impl Object {
    /// Where it lies in a cache or in a remote.
    pub(crate) fn relative_path(self, generation: Generation) -> String {
        let name = self.md5.to_string();
        let layout = match generation {
            Generation::Two => "",
            Generation::Three => "files/md5/",
        };
        let suffix = if self.is_listing { ".dir" } else { "" };
        format!("{layout}{}/{}{suffix}", &name[..2], &name[2..])
    }
}

/// The cache of a repository, as one generation of DVC sees it.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    is_shared: bool,
    generation: Generation,
}

impl Cache {
    pub(crate) fn of(config: &Config, generation: Generation) -> Self {
        Self { dir: config.cache_dir(), is_shared: config.cache_is_shared(), generation }
    }

    /// Where an object is or would be.
    pub(crate) fn path(&self, object: Object) -> PathBuf {
        self.dir.join(object.relative_path(self.generation))
    }

    /// Whether it is there; its contents are not read.
    pub(crate) fn has(&self, object: Object) -> bool {
        self.path(object).is_file()
    }

    /// What the object's contents hash to now; `None` if it is not there.
    pub(crate) fn hash(&self, object: Object) -> Result<Option<Md5>, DvcError> {
        let path = self.path(object);
        match self.generation.hash_file(&path) {
            Ok(md5) => Ok(Some(md5)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    /// An empty file for contents to come.
    pub(crate) fn new_file(&self) -> Result<NamedTempFile, DvcError> {
        self.make_dir(&self.dir)?;
        tempfile::Builder::new().prefix(".lockstep-").tempfile_in(&self.dir).map_err(io_error("write in", &self.dir))
    }

    /// Gives `file` the object's name if it has the object's contents, in the place of whatever had the name;
    /// otherwise it is removed, and the error is the MD5 that it has.
    pub(crate) fn put(&self, file: NamedTempFile, object: Object) -> Result<Result<(), Md5>, DvcError> {
        let found = self.generation.hash_file(file.path()).map_err(io_error("read", file.path()))?;
        if found != object.md5 {
            return Ok(Err(found));
        }
        let path = self.path(object);
        self.make_dir(path.parent().unwrap_or(&self.dir))?;
        let permissions = Permissions::from_mode(OBJECT_MODE);
        fs::set_permissions(file.path(), permissions).map_err(io_error("protect", file.path()))?;
        file.persist(&path).map_err(|error| io_error("write", &path)(error.error))?;
        Ok(Ok(()))
    }

    /// Copies `from` into the cache, if it has the object's contents.
    pub(crate) fn put_copy(&self, from: &Path, object: Object) -> Result<Result<(), Md5>, DvcError> {
        let file = self.new_file()?;
        fs::copy(from, file.path()).map_err(io_error("copy", from))?;
        self.put(file, object)
    }

    fn make_dir(&self, dir: &Path) -> Result<(), DvcError> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.make_dir(parent)?;
        }
        match fs::create_dir(dir) {
            Ok(()) if self.is_shared => fs::set_permissions(dir, Permissions::from_mode(SHARED_DIRECTORY_MODE)),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
        .map_err(io_error("make", dir))
    }
}

/// The files of a repository's cache, to which DVC's links in its work tree lead.
#[derive(Clone, Debug)]
pub struct Objects {
    /// Without links.
    dir: PathBuf,
}

impl Objects {
    /// Those of the repository that `path` is or lies in; `None` if it lies in none, or nothing is cached.
    pub fn around(path: &Path) -> Result<Option<Self>, DvcError> {
        let Some(root) = find::root_of(&find::absolute(&path.join("_"))?) else { return Ok(None) };
        let dir = Config::read(&root)?.cache_dir().canonicalize();
        Ok(dir.ok().map(|dir| Self { dir }))
    }

    /// Whether `path`, which goes through no link, is one by its name: a cache may be configured to be any directory.
    pub fn have(&self, path: &Path) -> bool {
        let Ok(name) = path.strip_prefix(&self.dir) else { return false };
        let name = name.strip_prefix("files/md5").unwrap_or(name);
        let Some((first, rest)) = name.to_str().and_then(|name| name.split_once('/')) else { return false };
        let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (first.len(), rest.len()) == (2, 30) && is_hex(first) && is_hex(rest)
    }
}

/// Copies the cache file `from` to `to`, where nothing may be, if it has the contents `md5`: otherwise nothing is
/// written, and the error is the MD5 that it has. What is unfinished lies in `tmp` if that is on the same disk.
pub(crate) fn check_out(
    (from, md5, generation): (&Path, Md5, Generation),
    to: &Path,
    tmp: &Path,
    is_executable: bool,
) -> Result<Result<(), Md5>, DvcError> {
    let real = |path: &Path| path.canonicalize().ok();
    if to.is_symlink() && real(to).is_some_and(|target| Some(target) == real(from)) {
        // DVC's own link, which leads somewhere again now that the cache has the file.
        let found = generation.hash_file(from).map_err(io_error("read", from))?;
        return Ok(if found == md5 { Ok(()) } else { Err(found) });
    }
    let parent = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    // A new clone has none; if it cannot be made, the file's own directory serves.
    drop(fs::create_dir_all(tmp));
    let device = |dir: &Path| fs::metadata(dir).map(|metadata| metadata.dev()).ok();
    let tmp = if device(tmp) == device(parent) { tmp } else { parent };
    // The umask takes its share of this mode, and of it only: `fs::copy` brings the cache's along.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lockstep-").permissions(Permissions::from_mode(0o666));
    let file = builder.tempfile_in(tmp).map_err(io_error("write in", tmp))?;
    let mut mode = file.as_file().metadata().map_err(io_error("read", file.path()))?.mode() & 0o777;
    fs::copy(from, file.path()).map_err(io_error("copy", from))?;
    let found = generation.hash_file(file.path()).map_err(io_error("read", file.path()))?;
    if found != md5 {
        return Ok(Err(found));
    }
    if is_executable {
        mode |= 0o100;
    }
    fs::set_permissions(file.path(), Permissions::from_mode(mode)).map_err(io_error("write", file.path()))?;
    // A link into a cache that was deleted leads nowhere, and holds nothing of anybody's.
    if to.is_symlink() && !to.exists() {
        fs::remove_file(to).map_err(io_error("replace", to))?;
    }
    match file.persist_noclobber(to) {
        Ok(_) => Ok(Ok(())),
        // Somebody else was quicker, perhaps another fetch.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            let found = generation.hash_file(to).map_err(io_error("read", to))?;
            let changed = || DvcError::Changed { path: to.to_owned(), expected: md5, found };
            if found == md5 { Ok(Ok(())) } else { Err(changed()) }
        }
        Err(error) => Err(io_error("write", to)(error.error)),
    }
}
