//! Access rights of a store: for its owner alone, and for its group after it was shared.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use lockstep_common::manifest::Piece;
use lockstep_host::access::{Access, share};
use lockstep_host::durable;
use lockstep_store::{BlobStore, shared};
use lockstep_support::{mode, modes};

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;
const GROUP_FILE: u32 = 0o660;
const GROUP_DIR: u32 = 0o2770;

fn fill(store: &BlobStore, text: &str) -> Piece {
    let piece = store.put(text.as_bytes()).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write(text.repeat(2).as_bytes()).unwrap();
    writer.finish(store).unwrap();
    let part = text.repeat(3);
    let whole = Piece { digest: lockstep_common::Domain::Blob.digest(part.as_bytes()), bytes: part.len() as u64 };
    let mut part = store.part(&whole).unwrap();
    part.write(&text.as_bytes()[..1]).unwrap();
    piece
}

#[test]
fn a_store_is_its_owners_and_its_groups_once_it_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("above/store");
    let store = BlobStore::open(&at).unwrap();
    fill(&store, "one");
    durable::write_atomic_in(&at.join("store-mark"), b"m", Access::of(&at)).unwrap();
    assert_eq!(modes(&at), [PRIVATE_FILE, PRIVATE_DIR]);
    share(&at).unwrap();
    let store = BlobStore::existing(&at).unwrap();
    let piece = fill(&store, "two");
    durable::write_atomic_in(&at.join("store-id"), b"i", Access::of(&at)).unwrap();
    let offer = shared::Offer::write(&at, "a1", "x").unwrap();
    assert_eq!(modes(&at), [GROUP_FILE, GROUP_DIR]);
    assert_eq!(store.get(&piece).unwrap(), b"two");
    drop(offer);
    // A directory that is merely group-writable is not shared: many umasks allow that.
    fs::set_permissions(&at, Permissions::from_mode(0o775)).unwrap();
    assert_eq!(Access::of(&at), Access::Owner);
}

#[test]
fn a_store_is_not_shared_through_a_link() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let precious = other.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    fs::set_permissions(&precious, Permissions::from_mode(PRIVATE_FILE)).unwrap();
    let at = dir.path().join("store");
    BlobStore::open(&at).unwrap();
    let before = mode(other.path());
    std::os::unix::fs::symlink(other.path(), at.join("ab")).unwrap();
    std::os::unix::fs::symlink(&precious, at.join("tmp/x")).unwrap();
    share(&at).unwrap();
    assert_eq!((mode(&precious), mode(other.path())), (PRIVATE_FILE, before));
    // Taking the lock of a directory overwrites its lock file.
    std::os::unix::fs::symlink(&precious, at.join("LOCK")).unwrap();
    assert!(durable::DirLock::acquire(&at).is_err());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
}
