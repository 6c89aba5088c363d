//! The store's identity: which store a coordinator's checkpoints are in.
//!
//! ```text
//! STORE/store-id      drawn when a coordinator first uses the store
//! DATA/store-id       the id of the store that this coordinator uses
//! ```
//!
//! A store that is not mounted is an empty directory. Without the identity runs would finish there, and their checkpoints
//! would vanish when the store is mounted over it. A copy has the same identity: [`marks`] tell it from the store.

mod marks;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lockstep_common::manifest::Piece;
use lockstep_host::access::Access;
use lockstep_host::blobs::BlobStore;
use lockstep_host::{durable, plain};
use marks::Marks;
use tracing::warn;

/// Name of the file, in the store and in the data directory.
const FILE: &str = "store-id";

/// Longest id (bytes) that is read.
const ID_BYTES: usize = 64;

/// A store that is not the coordinator's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another store, or none.
    #[error(
        "the store `{}` is not this coordinator's: {found}, and `{}` names the store `{expected}`; mount that store, or name it \
         with `--store DIR`",
        store.display(),
        remembered.display()
    )]
    Other {
        /// Where the store should be.
        store: PathBuf,
        /// What is there: `it is the store ...`, `it has no file ...`, or that it is missing.
        found: String,
        /// The file that remembers the id.
        remembered: PathBuf,
        /// The id that it holds.
        expected: String,
    },
    /// The same store, as it was before it was used in another directory.
    #[error(
        "the store `{}` is an older copy of this coordinator's: checkpoints were made elsewhere since, and are not in it; mount \
         the newest one, or name it with `--store DIR` (to go on without those checkpoints, remove `{}`)",
        store.display(),
        marks.display()
    )]
    Older {
        /// Where the store should be.
        store: PathBuf,
        /// The file that remembers the marks.
        marks: PathBuf,
    },
    /// A store without an id that has nothing of what the coordinator knows.
    #[error(
        "the store `{}` holds no checkpoint of this coordinator's, which has made some: mount the store that holds them, or name it \
         with `--store DIR` (to go on without them, write any word into `{}`)",
        store.display(),
        store.join(FILE).display()
    )]
    Empty {
        /// Where the store should be.
        store: PathBuf,
    },
    /// A file that cannot be read or written, or holds no id.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb for the message, as `read` or `write`.
        action: &'static str,
        /// The `store-id`, of the store or of the data directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Draws an id, or a mark.
type Draw = fn() -> io::Result<String>;

/// The store of a coordinator. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Identity {
    store: PathBuf,
    remembered: PathBuf,
    /// Empty while the store is full and could not be given one.
    id: Arc<OnceLock<String>>,
    /// What a store without an id is given.
    drawn: String,
    /// Which directory it was when it was taken.
    place: Option<Place>,
    draw: Draw,
    marks: Arc<Mutex<Marks>>,
}

/// A directory, whatever lies at its path now: its device and inode.
type Place = (u64, u64);

impl Identity {
    /// Takes the store at `store` for the coordinator whose state is in `data_dir`: the store that it used before, or, for
    /// one that remembers none, whatever store is there, as long as it has an id or one of the blobs `known`. Makes the directory
    /// of a new store.
    ///
    /// # Errors
    /// `Other` for a store that the coordinator did not use before, `Empty` for one without anything of its own, `Older` for a
    /// copy that was left behind.
    pub fn take(
        store: &Path,
        data_dir: &Path,
        known: impl FnOnce() -> Vec<Piece>,
        draw: fn() -> io::Result<String>,
    ) -> Result<Self, IdentityError> {
        let remembered = data_dir.join(FILE);
        let io = |action, path: &Path, source| IdentityError::Io { action, path: path.to_owned(), source };
        let id = read(&remembered)?;
        let mut this = Self {
            store: store.to_owned(),
            remembered,
            id: Arc::default(),
            drawn: String::new(),
            place: None,
            marks: Arc::new(Mutex::new(Marks::read(store, data_dir)?)),
            draw,
        };
        if let Some(id) = id {
            this.id = Arc::new(OnceLock::from(id));
            this.check()?;
            return Ok(this);
        }
        if read(&store.join(FILE))?.is_none() {
            let known = known();
            let is_there = |piece: &Piece| BlobStore::existing(store).is_ok_and(|store| store.check(piece).is_ok());
            if !known.is_empty() && !known.iter().any(is_there) {
                return Err(IdentityError::Empty { store: store.to_owned() });
            }
        }
        this.marks.lock().unwrap_or_else(PoisonError::into_inner).forget();
        durable::make_private_dir(store).map_err(|source| io("make", store, source))?;
        this.drawn = draw().map_err(|source| io("draw an id for", store, source))?;
        this.place = Some(this.place_now()?);
        this.check()?;
        Ok(this)
    }

    /// That the store is still the one that was taken.
    ///
    /// # Errors
    /// `Other` if it is another one, or not mounted any more; `Older` if it is a copy that was left behind.
    pub fn check(&self) -> Result<(), IdentityError> {
        if self.id.get().is_none() {
            if self.place != Some(self.place_now()?) {
                let source = io::Error::other("it is another directory than when this coordinator started");
                return Err(IdentityError::Io { action: "use", path: self.store.clone(), source });
            }
            self.give()?;
        }
        // It may still be full.
        let Some(expected) = self.id.get() else { return Ok(()) };
        let found = match read(&self.store.join(FILE))? {
            Some(id) if id == *expected => {
                let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
                return marks.check(self.place_now()?, self.draw);
            }
            Some(id) => format!("it is the store `{id}`"),
            None if self.store.is_dir() => format!("it has no file `{FILE}`"),
            None => "there is no such directory".to_owned(),
        };
        let (store, remembered, expected) = (self.store.clone(), self.remembered.clone(), expected.clone());
        Err(IdentityError::Other { store, found, remembered, expected })
    }

    /// Marks the store anew: copies that were made of it before are older ones from now on.
    ///
    /// # Errors
    /// `Io`, if the mark cannot be remembered. A store that takes no mark keeps the one that it has.
    pub fn mark(&self) -> Result<(), IdentityError> {
        if self.id.get().is_none() {
            return Ok(());
        }
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).renew(self.draw)
    }

    /// Gives the store its id, if it has none, and remembers it. A store that is full stays usable, and gets its id at a later check.
    fn give(&self) -> Result<(), IdentityError> {
        let path = self.store.join(FILE);
        let io = |path: &Path, source| IdentityError::Io { action: "write", path: path.to_owned(), source };
        let id = if let Some(id) = read(&path)? {
            id
        } else {
            let access = Access::of(&self.store);
            match durable::write_atomic_in(&path, format!("{}\n", self.drawn).as_bytes(), access) {
                Ok(()) => self.drawn.clone(),
                Err(error) if durable::is_full(&error) => {
                    warn!(store = %self.store.display(), "the store is full and gets no id yet: {error}");
                    return Ok(());
                }
                Err(source) => return Err(io(&path, source)),
            }
        };
        let remember = durable::write_atomic(&self.remembered, format!("{id}\n").as_bytes());
        remember.map_err(|source| io(&self.remembered, source))?;
        // Another clone may have been here first, with the same id.
        let _id = self.id.set(id);
        Ok(())
    }

    fn place_now(&self) -> Result<Place, IdentityError> {
        let found = fs::metadata(&self.store);
        let found = found.map_err(|source| IdentityError::Io { action: "read", path: self.store.clone(), source })?;
        Ok((found.dev(), found.ino()))
    }
}

/// The id in the file at `path`, if there is such a file.
fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let io = |source| IdentityError::Io { action: "read", path: path.to_owned(), source };
    match plain::read(path, 2 * ID_BYTES as u64) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).unwrap_or_default().trim().to_owned();
            if text.is_empty() || text.len() > ID_BYTES || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(io(io::Error::other("it holds no id of a store")));
            }
            Ok(Some(text))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Places {
        dir: tempfile::TempDir,
    }

    thread_local!(static DRAWN: Cell<u32> = const { Cell::new(0) });

    /// `id1` first in each test.
    #[expect(clippy::unnecessary_wraps, reason = "as a source of randomness that may fail")]
    fn draw() -> io::Result<String> {
        DRAWN.set(DRAWN.get() + 1);
        Ok(format!("id{}", DRAWN.get()))
    }

    impl Places {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("data")).unwrap();
            Self { dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn take(&self, store: &str) -> Result<Identity, String> {
            Identity::take(&self.path(store), &self.path("data"), Vec::new, draw).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn a_store_is_known_again_wherever_it_is_mounted_and_another_one_is_refused() {
        let place = Places::new();
        let taken = place.take("store").unwrap();
        taken.check().unwrap();
        place.take("store").unwrap();
        assert_eq!(fs::read_to_string(place.path("store/store-id")).unwrap(), "id1\n");

        let missing = place.take("elsewhere").unwrap_err();
        assert!(
            missing.contains("there is no such directory") && missing.contains("names the store `id1`"),
            "{missing}"
        );
        assert!(!place.path("elsewhere").exists(), "nothing is made where nothing is mounted");
        fs::create_dir(place.path("empty")).unwrap();
        let empty = place.take("empty").unwrap_err();
        assert!(empty.contains("it has no file `store-id`"), "{empty}");
        fs::write(place.path("empty/store-id"), "id9\n").unwrap();
        let other = place.take("empty").unwrap_err();
        assert!(other.contains("it is the store `id9`") && other.contains("data/store-id"), "{other}");

        fs::rename(place.path("store"), place.path("moved")).unwrap();
        assert!(matches!(taken.check(), Err(IdentityError::Other { .. })), "it was unmounted");
        place.take("moved").unwrap().check().unwrap();

        fs::remove_file(place.path("data/store-id")).unwrap();
        place.take("empty").unwrap();
        assert_eq!(fs::read_to_string(place.path("data/store-id")).unwrap(), "id9\n", "it is adopted");
    }

    #[test]
    fn a_copy_that_was_left_behind_is_refused_at_a_start_and_at_a_check() {
        let places = Places::new();
        let copy = |from: &Path, to: &Path| {
            fs::create_dir_all(to).unwrap();
            for file in ["store-id", "store-mark"] {
                fs::copy(from.join(file), to.join(file)).unwrap();
            }
        };
        places.take("store").unwrap();
        copy(&places.path("store"), &places.path("old"));
        let running = places.take("store").unwrap();
        let older = places.take("old").unwrap_err();
        assert!(older.contains("is an older copy of this coordinator's") && older.contains("store-marks"), "{older}");
        // Under the feet of a coordinator that runs: it moves to a copy, and then falls back to what it was copied from.
        fs::rename(places.path("store"), places.path("before")).unwrap();
        copy(&places.path("before"), &places.path("store"));
        running.check().unwrap();
        fs::rename(places.path("store"), places.path("after")).unwrap();
        fs::rename(places.path("before"), places.path("store")).unwrap();
        assert!(matches!(running.check(), Err(IdentityError::Older { .. })));
        places.take("store").unwrap_err();
        places.take("after").unwrap();
        // A start that was killed before it wrote the mark, or after it.
        let marks = places.path("data/store-marks");
        let text = fs::read_to_string(&marks).unwrap();
        fs::write(&marks, format!("{text}next ?\n")).unwrap();
        places.take("after").unwrap();
        fs::write(&marks, format!("{text}next ?\n")).unwrap();
        fs::write(places.path("after/store-mark"), "next\n").unwrap();
        places.take("after").unwrap();
        places.take("old").unwrap_err();
        // An older copy of the data directory, or another coordinator: the store may know more.
        fs::write(&marks, "other\n").unwrap();
        places.take("after").unwrap();
        fs::remove_file(&marks).unwrap();
        places.take("old").unwrap();
    }

    /// As after an upgrade from a version whose directories name no store.
    #[test]
    fn a_store_without_anything_of_a_coordinator_that_made_checkpoints_is_not_taken_for_its_own() {
        let places = Places::new();
        let blob = BlobStore::open(&places.path("store")).unwrap().put(b"weights").unwrap();
        fs::create_dir(places.path("empty")).unwrap();
        let take = |store: &str| {
            let known = || vec![Piece { bytes: 9, ..blob.clone() }, blob.clone()];
            Identity::take(&places.path(store), &places.path("data"), known, draw).map_err(|error| error.to_string())
        };
        for store in ["empty", "missing"] {
            let empty = take(store).unwrap_err();
            assert!(
                empty.contains("holds no checkpoint of this coordinator's") && empty.contains("store-id"),
                "{empty}"
            );
            assert!(!places.path(store).join("store-id").exists());
        }
        assert!(!places.path("missing").exists());
        take("store").unwrap();
        // The way out that it names.
        fs::remove_file(places.path("data/store-id")).unwrap();
        fs::write(places.path("empty/store-id"), "lost\n").unwrap();
        take("empty").unwrap();
    }

    #[test]
    fn a_copy_from_before_a_mark_is_older_whoever_had_marked_it() {
        let places = Places::new();
        let ours = places.take("store").unwrap();
        let mark = || fs::read(places.path("store/store-mark")).unwrap();
        let copied = mark();
        ours.mark().unwrap();
        fs::create_dir(places.path("data2")).unwrap();
        let other = Identity::take(&places.path("store"), &places.path("data2"), Vec::new, draw).unwrap();
        let copied_of_other = mark();
        ours.mark().unwrap();
        ours.check().unwrap();
        other.check().unwrap();
        for older in [copied, copied_of_other] {
            fs::write(places.path("store/store-mark"), older).unwrap();
            assert!(matches!(ours.check(), Err(IdentityError::Older { .. })));
            assert!(matches!(places.take("store"), Err(error) if error.contains("is an older copy")));
        }
    }

    #[test]
    fn too_many_marks_that_did_not_reach_the_store_are_forgotten() {
        let places = Places::new();
        places.take("store").unwrap();
        fs::write(places.path("data/store-marks"), "m ?\n".repeat(20_000)).unwrap();
        fs::remove_file(places.path("store/store-mark")).unwrap();
        places.take("store").unwrap().check().unwrap();
    }

    #[test]
    fn a_store_that_was_full_gets_its_id_later_and_is_checked_until_then() {
        let places = Places::new();
        let taken = places.take("store").unwrap();
        // As it was when there was no room.
        let full = Identity { id: Arc::default(), ..taken };
        for file in ["store/store-id", "data/store-id"] {
            fs::remove_file(places.path(file)).unwrap();
        }
        fs::rename(places.path("store"), places.path("unmounted")).unwrap();
        fs::create_dir(places.path("store")).unwrap();
        let other = full.check().unwrap_err().to_string();
        assert!(other.starts_with("cannot use `") && !places.path("store/store-id").exists(), "{other}");
        fs::remove_dir(places.path("store")).unwrap();
        assert!(full.check().is_err());
        fs::rename(places.path("unmounted"), places.path("store")).unwrap();
        full.check().unwrap();
        for file in ["store/store-id", "data/store-id"] {
            assert_eq!(fs::read_to_string(places.path(file)).unwrap(), "id1\n");
        }
        fs::write(places.path("store/store-id"), "id9\n").unwrap();
        assert!(matches!(full.check(), Err(IdentityError::Other { .. })));
    }

    #[test]
    fn a_file_that_holds_no_id_is_named() {
        let place = Places::new();
        place.take("store").unwrap();
        for bytes in [&b""[..], b"../x", &[b'a'; 65], &[0xff]] {
            fs::write(place.path("store/store-id"), bytes).unwrap();
            let error = place.take("store").unwrap_err();
            assert!(error.starts_with("cannot read") && error.contains("store/store-id"), "{error}");
        }
    }
}
