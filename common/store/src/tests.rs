//! Blobs: reading returns the bytes that were put, damage is detected, and nothing counts as durable before its sync.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::SystemTime;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use lockstep_common::manifest::Piece;
use lockstep_host::data::hash_read;
use lockstep_host::progress;

use super::directory::UNCACHED_BYTES;
use super::*;

fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn what_is_put_is_got_whatever_its_size() {
    let (_dir, store) = store();
    for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 7 * PIECE_BYTES] {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        let parts: Vec<&[u8]> = bytes.chunks(PIECE_BYTES).collect();
        let pieces = store.put_all(&parts, false).unwrap();
        assert_eq!(store.put_all(&parts, true).unwrap(), pieces);
        assert_eq!(pieces.len(), size.div_ceil(PIECE_BYTES));
        let mut back = vec![0; size];
        store.get_into(&pieces, &mut back).unwrap();
        assert!(back == bytes);
    }
    store.sync().unwrap();
}

#[test]
fn an_onlooker_sees_that_blobs_are_written_and_read() {
    let (_dir, store) = store();
    let bytes = vec![7; 2 * PIECE_BYTES];
    let mut before = progress::seen().count;
    let mut grows = |by: u64, what: &str| {
        let now = progress::seen().count;
        assert!(now >= before + by, "{what}: {before}, then {now}");
        before = now;
    };
    let pieces = [store.put(&bytes[..100]).unwrap(), store.put_anew(&bytes[..100]).unwrap()];
    grows(2, "two are written");
    store.put(&bytes[..100]).unwrap();
    grows(1, "one is found, and compared");
    store.get(&pieces[0]).unwrap();
    grows(1, "one is read");
    store.get_into(&pieces, &mut [0; 200]).unwrap();
    grows(2, "two are read together");
    let large = store.put(&bytes).unwrap();
    grows(1, "a large one is written");
    store.verify(&large).unwrap();
    grows(4, "one of 16 MiB is read by 4 MiB");
}

#[test]
fn a_large_blob_that_is_durable_leaves_memory_to_others() {
    let in_memory = |path: &Path| {
        let (file, mut bytes) = (File::open(path).unwrap(), [0; 4096]);
        let mut bytes = [io::IoSliceMut::new(&mut bytes)];
        rustix::io::preadv2(&file, &mut bytes, 0, rustix::io::ReadWriteFlags::NOWAIT).is_ok()
    };
    let (dir, store) = store();
    let large = store.put(&vec![7; UNCACHED_BYTES as usize]).unwrap();
    let small = store.put(&vec![7; UNCACHED_BYTES as usize - 1]).unwrap();
    // A file system in memory, such as tmpfs, ignores the advice. So the blob is compared with another file.
    let mut other = File::create(dir.path().join("other")).unwrap();
    other.write_all(&vec![7; UNCACHED_BYTES as usize]).unwrap();
    other.sync_data().unwrap();
    rustix::fs::fadvise(&other, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert_eq!(in_memory(&store.local_path(&large.digest)), in_memory(&dir.path().join("other")));
    assert!(in_memory(&store.local_path(&small.digest)), "small ones are read soon");
}

#[test]
fn a_flipped_bit_a_lost_tail_and_a_lost_blob_are_found() {
    let (_dir, store) = store();
    let piece = store.put(b"weights").unwrap();
    let path = store.local_path(&piece.digest);
    fs::write(&path, b"weighty").unwrap();
    assert!(matches!(store.get(&piece), Err(BlobError::Corrupt { .. })));
    fs::write(&path, b"weigh").unwrap();
    assert!(matches!(store.get(&piece), Err(BlobError::Truncated { expected: 7, found: 5, .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.get(&piece), Err(BlobError::Missing { .. })));
}

#[test]
fn a_blob_that_comes_in_parts_goes_on_where_it_stopped_and_is_checked() {
    let (_dir, store) = store();
    let piece = Piece { digest: lockstep_common::Domain::Blob.digest(b"weights"), bytes: 7 };
    store.part(&piece).unwrap().write(b"wei").unwrap();
    let mut part = store.part(&piece).unwrap();
    assert_eq!(part.bytes(), 3);
    part.write(b"ghts").unwrap();
    part.finish().unwrap();
    assert_eq!(store.get(&piece).unwrap(), b"weights");
    store.verify(&piece).unwrap();
    assert_eq!(fs::read(store.local_path(&piece.digest)).unwrap(), b"weights");
    fs::remove_file(store.local_path(&piece.digest)).unwrap();

    store.part(&piece).unwrap().write(b"wei").unwrap();
    let mut part = store.part(&piece).unwrap();
    part.write(b"ghty").unwrap();
    assert!(matches!(part.finish(), Err(BlobError::Corrupt { .. })));
    assert!(matches!(store.verify(&piece), Err(BlobError::Missing { .. })));
    assert_eq!(store.part(&piece).unwrap().bytes(), 0, "the part starts from 0 again");
    store.writer().unwrap().write(b"left alone").unwrap();
    assert_eq!(fs::read_dir(store.dir.join("tmp")).unwrap().count(), 1, "only the part");
}

/// Moves the directory of a blob away while `act` runs, so that it cannot be synced.
fn without_directory(store: &BlobStore, piece: &Piece, act: impl FnOnce()) {
    let path = store.local_path(&piece.digest);
    let (there, away) = (path.parent().unwrap(), store.dir.join("away"));
    fs::rename(there, &away).unwrap();
    act();
    fs::rename(&away, there).unwrap();
}

#[test]
fn a_failed_sync_is_not_forgotten() {
    let (_dir, store) = store();
    let piece = store.put(b"weights").unwrap();
    without_directory(&store, &piece, || {
        assert!(matches!(store.sync(), Err(BlobError::Io { action: "sync", .. })));
        assert!(store.sync().is_err(), "the name is still not durable");
    });
    store.sync().unwrap();
    without_directory(&store, &piece, || store.sync().unwrap());
}

#[test]
fn the_name_of_a_blob_that_is_found_is_made_durable_too() {
    let (dir, writer) = store();
    let piece = writer.put(b"weights").unwrap();
    // The writer crashes before it syncs.
    let store = BlobStore::open(dir.path()).unwrap();
    store.put(b"weights").unwrap();
    without_directory(&store, &piece, || assert!(store.sync().is_err()));
    store.sync().unwrap();

    let mut again = store.writer().unwrap();
    again.write(b"weights").unwrap();
    assert_eq!(again.finish(&store).unwrap(), piece);
    without_directory(&store, &piece, || assert!(store.sync().is_err()));

    let other = BlobStore::open(dir.path()).unwrap();
    assert!(other.has_durably(&piece).unwrap());
    fs::remove_file(other.local_path(&piece.digest)).unwrap();
    assert!(!other.has_durably(&piece).unwrap());
}

#[test]
fn a_blob_that_is_put_anew_is_a_new_file() {
    use std::os::unix::fs::MetadataExt as _;
    let (_dir, store) = store();
    let piece = store.put(b"weights").unwrap();
    let file = || fs::metadata(store.local_path(&piece.digest)).unwrap().ino();
    let before = fs::File::open(store.local_path(&piece.digest)).unwrap();
    let first = file();
    store.put(b"weights").unwrap();
    assert_eq!(file(), first);
    store.put_anew(b"weights").unwrap();
    assert_ne!(file(), first, "the first one is still open: {before:?}");
    assert_eq!(store.get(&piece).unwrap(), b"weights");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_who_only_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let error = BlobStore::existing(&path).unwrap_err();
    assert!(matches!(error, BlobError::NoStore { .. }) && !path.exists(), "{error}");
    BlobStore::open(&path).unwrap();
    let store = BlobStore::existing(&path).unwrap();
    let piece = store.put(b"weights").unwrap();
    store.check(&piece).unwrap();
    assert!(matches!(store.check(&Piece { bytes: 8, ..piece }), Err(BlobError::Truncated { .. })));
    fs::remove_file(store.local_path(&piece.digest)).unwrap();
    assert!(matches!(store.check(&piece), Err(BlobError::Missing { .. })));
}

#[test]
fn a_truncated_blob_is_healed_by_the_next_put() {
    let (_dir, store) = store();
    let piece = store.put(b"weights").unwrap();
    fs::write(store.local_path(&piece.digest), b"we").unwrap();
    store.put(b"weights").unwrap();
    assert_eq!(store.get(&piece).unwrap(), b"weights");
}

#[test]
fn a_blob_that_was_damaged_is_healed_by_whoever_puts_it_again() {
    let (dir, store) = store();
    let piece = store.put(b"weights").unwrap();
    let damage = |bytes: &[u8]| {
        fs::write(store.local_path(&piece.digest), bytes).unwrap();
        assert!(!store.has_durably(&piece).unwrap(), "its length is right, and it is not whole");
    };
    damage(b"weighty");
    store.put(b"weights").unwrap();
    assert_eq!(store.get(&piece).unwrap(), b"weights");

    damage(b"Weights");
    let mut writer = store.writer().unwrap();
    writer.write(b"weights").unwrap();
    writer.finish(&store).unwrap();
    assert_eq!(store.get(&piece).unwrap(), b"weights");

    damage(b"weighTs");
    let mut part = store.part(&piece).unwrap();
    part.write(b"weights").unwrap();
    part.finish().unwrap();
    assert_eq!(store.get(&piece).unwrap(), b"weights");
    assert!(store.has_durably(&piece).unwrap());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

/// Reading an unmapped page of `/proc/self/mem` is an error, like reading a bad sector of a disk.
#[test]
fn contents_that_cannot_be_read_are_an_error() {
    let memory = File::open("/proc/self/mem").unwrap();
    assert!(hash_read(&memory, &mut blake3::Hasher::new()).is_err());
    assert!(!contents::are(&mut File::open("/proc/self/mem").unwrap(), b"weights"));
}

#[test]
fn contents_are_hashed_whatever_their_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    for size in [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20] {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let mut hasher = blake3::Hasher::new();
        hash_read(&File::open(&path).unwrap(), &mut hasher).unwrap();
        assert_eq!((hasher.finalize(), hasher.count()), (blake3::hash(&bytes), size as u64));
        assert!(contents::are(&mut File::open(&path).unwrap(), &bytes));
    }
}

#[test]
fn what_writers_that_are_gone_left_is_deleted_and_nothing_that_is_young_or_held() {
    let day = Duration::from_hours(24);
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let tmp = dir.path().join("tmp");
    let age = |path: &Path| {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - 2 * day).unwrap();
    };
    let names = || fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>();
    // Files of running saves, here or on another machine, that did not change for a while.
    let piece = Piece { digest: lockstep_common::Domain::Blob.digest(b"part"), bytes: 4 };
    let (mut writer, mut part) = (store.writer().unwrap(), store.part(&piece).unwrap());
    writer.write(b"wri").unwrap();
    part.write(b"pa").unwrap();
    let held = names();
    for name in &held {
        age(&tmp.join(name));
    }
    let whole_name = format!("{}.part", "01".repeat(32));
    for name in [".tmpYoung", ".tmpOld", &whole_name, "join-x.owner", "0123.part", "thesis.tex", "join-x", ".tmp.x"] {
        fs::write(tmp.join(name), "left").unwrap();
        if name != ".tmpYoung" {
            age(&tmp.join(name));
        }
    }
    fs::create_dir(tmp.join("directory")).unwrap();
    assert_eq!(store.sweep(day).unwrap(), 3);
    // Files with other names do not belong to a store.
    let others = [".tmpYoung", "directory", "0123.part", "thesis.tex", "join-x", ".tmp.x"].map(OsString::from);
    let kept: BTreeSet<OsString> = held.into_iter().chain(others).collect();
    assert_eq!(names(), kept);
    writer.finish(&store).unwrap();
    part.write(b"rt").unwrap();
    part.finish().unwrap();
    assert_eq!(store.get(&piece).unwrap(), b"part");
    // Dropping a part releases its lock.
    let mut part = store.part(&Piece { bytes: 9, ..piece }).unwrap();
    part.write(b"pa").unwrap();
    drop(part);
    for name in names().iter().filter(|name| *name != "directory") {
        age(&tmp.join(name));
    }
    assert_eq!(store.sweep(day).unwrap(), 2);
}

/// In a store of a group, every member of the group can replace a directory by a link.
#[test]
fn a_directory_that_became_a_link_is_neither_swept_nor_written_to() {
    let day = Duration::from_hours(24);
    let (dir, store) = store();
    let piece = store.put(b"weights").unwrap();
    let other = tempfile::tempdir().unwrap();
    let precious = other.path().join(".tmpMine");
    fs::write(&precious, "mine").unwrap();
    File::options().append(true).open(&precious).unwrap().set_modified(SystemTime::now() - 2 * day).unwrap();
    let exchange = |path: &Path| {
        fs::rename(path, other.path().join("away")).unwrap();
        symlink(other.path(), path).unwrap();
    };
    let back = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::rename(other.path().join("away"), path).unwrap();
    };
    let tmp = dir.path().join("tmp");
    exchange(&tmp);
    let refused: [Result<(), BlobError>; 6] = [
        store.sweep(day).map(drop),
        store.put(b"other").map(drop),
        store.writer().map(drop),
        store.part(&Piece { digest: piece.digest, bytes: 9 }).map(drop),
        BlobStore::open(dir.path()).map(drop),
        BlobStore::existing(dir.path()).map(drop),
    ];
    for error in refused.map(Result::unwrap_err) {
        let words = lockstep_common::chain(&error);
        assert!(words.contains("it is a symbolic link, not a directory") && words.contains("/tmp"), "{words}");
    }
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 2, "{precious:?} and the moved directory");
    back(&tmp);
    store.put(b"other").unwrap();

    let of_blob = store.local_path(&piece.digest).parent().unwrap().to_owned();
    exchange(&of_blob);
    assert!(store.put_anew(b"weights").is_err() && store.get(&piece).is_err() && !store.has(&piece));
    back(&of_blob);
    assert_eq!(store.get(&piece).unwrap(), b"weights");
}

#[test]
fn what_is_no_regular_file_is_no_blob_and_is_replaced_by_one() {
    let (dir, store) = store();
    let piece = store.put(b"weights").unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "SECRETS").unwrap();
    let plant: [&dyn Fn(&Path); 2] = [&|path| symlink(&secret, path).unwrap(), &|path| {
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }];
    for plant in plant {
        let path = store.local_path(&piece.digest);
        fs::remove_file(&path).unwrap();
        plant(&path);
        for refused in [store.opened(&piece).map(drop), store.get(&piece).map(drop), store.check(&piece)] {
            let words = lockstep_common::chain(&refused.unwrap_err());
            assert!(words.contains("not a regular file"), "{words}");
        }
        assert!(!store.has_durably(&piece).unwrap() && !store.has(&piece));
        store.put(b"weights").unwrap();
        assert_eq!(store.get(&piece).unwrap(), b"weights");
    }
    // A link in place of a partial blob's file.
    let part = dir.path().join("tmp").join(format!("{}.part", piece.digest.to_hex()));
    symlink(&secret, &part).unwrap();
    assert!(matches!(store.part(&piece), Err(BlobError::Io { action: "open", .. })));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "SECRETS");
}
