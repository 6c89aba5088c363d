//! Checks that two machines access the same store: each reads a file that the other wrote.
//!
//! ```text
//!  owner   writes tmp/join-NAME.owner ────────> guest reads it
//!  owner   reads  tmp/join-NAME.guest <──────── guest writes it
//! ```
//!
//! Both files contain a random text that only their writer knows. Both sides remove the files. The check must pass on a full disk, so
//! that nodes do not lose their work: a file may stay empty, because its random name is proof enough. If the owner cannot create a
//! file, the guest reads the store's mark. If the guest cannot create one, it tells the owner so.

use std::io::{self, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lockstep_host::access::Access;
use lockstep_host::durable::is_full;
use lockstep_host::plain::{self, Dir};

use crate::layout::TMP;

/// Time to wait for the other side's file. A network file system usually shows it at once; a slow server needs this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// Time between two attempts to read the other side's file.
const PAUSE: Duration = Duration::from_millis(100);

/// The file with the store's newest mark. The owner of the store detects older copies of the store by it.
pub const MARK: &str = "store-mark";

/// Longest text that is read, in bytes.
const TEXT_BYTES: u64 = 256;

const PREFIX: &str = "join-";
const OWNER: &str = ".owner";
const GUEST: &str = ".guest";

/// The owner's side of one check. Dropping it removes the files of both sides.
#[derive(Debug)]
pub struct Offer {
    tmp: Dir,
    own: String,
    guest: String,
    /// The store's mark, if the disk was too full for a file.
    mark: Option<String>,
}

/// The guest's side of one check. Dropping it removes the guest's file.
#[derive(Debug)]
pub struct Answer {
    tmp: Dir,
    own: String,
    /// Contents of the owner's file, or the store's mark.
    pub found: String,
    /// Contents of the guest's file; empty if the disk was full.
    pub wrote: String,
}

impl Offer {
    /// Writes `text` into the store at `store`, in a file of the check `name`, which must be unique.
    pub fn write(store: &Path, name: &str, text: &str) -> io::Result<Self> {
        let ((own, guest), tmp) = (names(name), tmp(store)?);
        let mark = match write(&tmp, &own, Access::of(store), text) {
            // If there is no mark, the error is that the disk is full.
            Err(error) if is_full(&error) => Some(read_mark(store).map_err(|_| error)?),
            written => {
                written?;
                None
            }
        };
        Ok(Self { tmp, own, guest, mark })
    }

    /// Whether `found`, which the guest has read, is the owner's `text` or the store's mark.
    pub fn was_read(&self, text: &str, found: &str) -> bool {
        self.mark.as_ref().map_or_else(|| is_same(found, text), |mark| mark == found)
    }

    /// Checks that the guest's file contains `text`. An empty `text` means that the guest's disk was full: there is no file then.
    ///
    /// # Errors
    /// A message with the path and the reason.
    pub fn check(&self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let path = self.tmp.path().join(&self.guest);
        match read(&self.tmp, &self.guest) {
            Ok(found) if is_same(&found, text) => Ok(()),
            Ok(_) => Err(format!("`{}` does not contain the text that the node wrote", path.display())),
            Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        remove(&self.tmp, &self.own);
        remove(&self.tmp, &self.guest);
    }
}

/// Reads the owner's file in the store at `store`, and writes the guest's file with `text`. Creates no directory.
///
/// # Errors
/// A message with the path that could not be read or written, and the reason.
pub fn answer(store: &Path, name: &str, text: &str) -> Result<Answer, String> {
    let (owner, own) = names(name);
    let path = |name: &str| store.join(TMP).join(name).display().to_string();
    let tmp = tmp(store).map_err(|error| format!("cannot read `{}`: {error}", path(&owner)))?;
    let found = match read(&tmp, &owner) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => read_mark(store).map_err(|_| error),
        found => found,
    };
    let found = found.map_err(|error| format!("cannot read `{}`: {error}", path(&owner)))?;
    let written = write(&tmp, &own, Access::of(store), text);
    let wrote = match written {
        // A store that is mounted read-only on this node is an error: its owner can write to it.
        Err(error) if is_full(&error) && error.kind() != io::ErrorKind::ReadOnlyFilesystem => String::new(),
        Err(error) => return Err(format!("cannot write `{}`: {error}", path(&own))),
        Ok(()) => text.to_owned(),
    };
    Ok(Answer { tmp, own, found, wrote })
}

impl Drop for Answer {
    fn drop(&mut self) {
        remove(&self.tmp, &self.own);
    }
}

/// Age from which a file of a check is abandoned: no check takes as long.
const LEFT: Duration = Duration::from_hours(1);

/// Removes files of interrupted checks from the store at `store`. Younger files stay: another coordinator's check may be running.
pub fn sweep(store: &Path) {
    let Ok(tmp) = tmp(store) else { return };
    for name in tmp.names().unwrap_or_default() {
        let Some(name) = name.to_str().filter(|name| is_name(name)) else { continue };
        let modified = tmp.file(name).and_then(|file| file.metadata()?.modified());
        if modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT)) {
            remove(&tmp, name);
        }
    }
}

/// Whether `name` is the name of a check's file.
pub(crate) fn is_name(name: &str) -> bool {
    let name = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(OWNER).or(name.strip_suffix(GUEST)));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The text of the store's mark.
fn read_mark(store: &Path) -> io::Result<String> {
    text(plain::read(&store.join(MARK), TEXT_BYTES)?)
}

/// Whether a file's contents are its writer's `text`, or empty because the disk was full.
fn is_same(found: &str, text: &str) -> bool {
    found == text || found.is_empty()
}

/// Writes a file, which stays empty if the disk is full.
///
/// # Errors
/// If the disk is so full that it cannot create a file, and for other errors.
fn write(tmp: &Dir, name: &str, access: Access, text: &str) -> io::Result<()> {
    // The file has the access rights of a blob, so that a node of another user fails here and not at its first checkpoint.
    let mut file = tmp.create(name)?;
    let written = access.give(&file).and_then(|()| file.write_all(text.as_bytes()));
    match written {
        Err(error) if is_full(&error) => Ok(()),
        Err(error) => {
            remove(tmp, name);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

fn names(name: &str) -> (String, String) {
    // A name from the network must not lead out of the directory.
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    (format!("{PREFIX}{name}{OWNER}"), format!("{PREFIX}{name}{GUEST}"))
}

fn tmp(store: &Path) -> io::Result<Dir> {
    Dir::open(store)?.dir(TMP)
}

/// The text of the file `name`. Waits up to [`PATIENCE`] for it.
fn read(tmp: &Dir, name: &str) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tmp.file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => sleep(PAUSE),
            file => return text(plain::contents(&file?, TEXT_BYTES)?),
        }
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// Removes a file. Errors are ignored: the other side may have removed it.
fn remove(tmp: &Dir, name: &str) {
    let _ = tmp.remove(name);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;

    fn store() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        dir
    }

    fn count(store: &tempfile::TempDir) -> usize {
        fs::read_dir(store.path().join("tmp")).unwrap().count()
    }

    #[test]
    fn two_that_see_one_store_find_it_out_and_leave_nothing() {
        let store = store();
        let offer = Offer::write(store.path(), "a1", "from the owner").unwrap();
        let answer = answer(store.path(), "a1", "from the guest").unwrap();
        assert_eq!((answer.found.as_str(), answer.wrote.as_str()), ("from the owner", "from the guest"));
        assert!(offer.was_read("from the owner", &answer.found) && !offer.was_read("other", &answer.found));
        offer.check("from the guest").unwrap();
        assert!(offer.check("other").unwrap_err().ends_with(".guest` does not contain the text that the node wrote"));
        drop(answer);
        drop(offer);
        assert_eq!(count(&store), 0);
    }

    #[test]
    fn two_stores_are_told_apart_in_both_directions() {
        let (owners, guests) = (store(), store());
        let offer = Offer::write(owners.path(), "a1", "x").unwrap();
        let missing = answer(guests.path(), "a1", "y").unwrap_err();
        assert!(missing.contains("cannot read") && missing.contains("join-a1.owner"), "{missing}");
        assert_eq!(count(&guests), 0);
        // A guest that can read the owner's text, but writes to another directory.
        fs::write(guests.path().join("tmp/join-a1.owner"), "x").unwrap();
        let answer = answer(guests.path(), "a1", "y").unwrap();
        let missing = offer.check("y").unwrap_err();
        assert!(missing.contains("cannot read") && missing.contains("join-a1.guest"), "{missing}");
        drop((offer, answer));
        assert_eq!((count(&owners), count(&guests)), (0, 1));
        sweep(guests.path());
        assert_eq!(count(&guests), 1, "it may be under way");
        let left = fs::File::open(guests.path().join("tmp/join-a1.owner")).unwrap();
        left.set_modified(SystemTime::now() - LEFT * 2).unwrap();
        sweep(guests.path());
        assert_eq!(count(&guests), 0);
    }

    /// The store's mark replaces the file that the owner could not create.
    #[test]
    fn where_the_disk_takes_no_file_the_mark_is_compared() {
        let (store, other) = (store(), store());
        fs::write(store.path().join(MARK), "m1\n").unwrap();
        fs::write(other.path().join(MARK), "m0\n").unwrap();
        let (own, guest) = names("a1");
        let offer = Offer { tmp: tmp(store.path()).unwrap(), own, guest, mark: Some("m1\n".to_owned()) };
        let found = |store: &tempfile::TempDir| answer(store.path(), "a1", "y").unwrap().found.clone();
        assert!(offer.was_read("x", &found(&store)) && !offer.was_read("x", &found(&other)));
        assert!(!offer.was_read("x", "") && !offer.was_read("x", "x"));
        offer.check("").expect("a guest whose disk is full as well");
    }

    #[test]
    fn another_user_can_read_a_check_as_little_as_a_blob() {
        use std::os::unix::fs::PermissionsExt as _;

        let store = store();
        let offer = Offer::write(store.path(), "a1", "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let blobs = crate::BlobStore::open(store.path()).unwrap();
        let blob = blobs.local_path(&blobs.put(b"x").unwrap().digest);
        assert_eq!(mode(&store.path().join("tmp").join(&offer.own)), mode(&blob));
    }

    #[test]
    fn a_store_that_is_not_there_is_not_made_and_a_name_leads_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        answer(&dir.path().join("store"), "../../a1", "y").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let store = store();
        let offer = Offer::write(store.path(), "../../a1", "x").unwrap();
        assert_eq!(offer.own, "join-a1.owner");
    }

    /// Another member of the store's group, or a malicious node, could make such a link or pipe.
    #[test]
    fn a_link_or_a_pipe_in_the_place_of_a_file_is_neither_written_through_nor_read_nor_waited_for() {
        use std::os::unix::fs::symlink;

        let (store, other) = (store(), tempfile::tempdir().unwrap());
        let thesis = other.path().join("thesis.tex");
        fs::write(&thesis, "mine").unwrap();
        let at = |name: &str| store.path().join("tmp").join(name);
        let offer = Offer::write(store.path(), "a1", "x").unwrap();
        symlink(&thesis, at("join-a1.guest")).unwrap();
        let refused = answer(store.path(), "a1", "y").unwrap_err();
        assert!(refused.starts_with("cannot write") && refused.contains("join-a1.guest"), "{refused}");
        assert!(offer.check("mine").unwrap_err().contains("a symbolic link"));
        for guest in ["/dev/zero", "pipe"] {
            fs::remove_file(at("join-a1.guest")).unwrap();
            if guest == "pipe" {
                let mode = rustix::fs::Mode::RWXU;
                let pipe = at("join-a1.guest");
                rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            } else {
                symlink(guest, at("join-a1.guest")).unwrap();
            }
            assert!(offer.check("y").unwrap_err().contains("not a regular file"), "{guest}");
        }
        fs::remove_file(at("join-a1.guest")).unwrap();
        fs::write(at("join-a1.guest"), "y".repeat(257)).unwrap();
        assert!(offer.check("y").unwrap_err().contains("more than 256 bytes"));
        symlink(&thesis, at("join-b2.owner")).unwrap();
        Offer::write(store.path(), "b2", "x").unwrap_err();
        assert!(answer(store.path(), "b2", "y").unwrap_err().contains("a symbolic link"));
        assert_eq!(fs::read_to_string(&thesis).unwrap(), "mine");
    }
}
