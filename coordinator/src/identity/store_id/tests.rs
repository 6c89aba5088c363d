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
        Identity::take(&self.path(store), &self.path("data"), || Ok::<_, IdentityError>(Vec::new()), draw)
            .map_err(|error| error.to_string())
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
    assert!(missing.contains("there is no such directory") && missing.contains("names the store `id1`"), "{missing}");
    assert!(!place.path("elsewhere").exists(), "no directory is created where nothing is mounted");
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
    assert_eq!(fs::read_to_string(place.path("data/store-id")).unwrap(), "id9\n", "the coordinator adopts the store");
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
    // While the coordinator runs, a copy replaces the store, and then the original replaces the copy.
    fs::rename(places.path("store"), places.path("before")).unwrap();
    copy(&places.path("before"), &places.path("store"));
    running.check().unwrap();
    fs::rename(places.path("store"), places.path("after")).unwrap();
    fs::rename(places.path("before"), places.path("store")).unwrap();
    assert!(matches!(running.check(), Err(IdentityError::Older { .. })));
    places.take("store").unwrap_err();
    places.take("after").unwrap();
    // A start was killed before it wrote the mark, or after.
    let marks = places.path("data/store-marks");
    let text = fs::read_to_string(&marks).unwrap();
    fs::write(&marks, format!("{text}next ?\n")).unwrap();
    places.take("after").unwrap();
    fs::write(&marks, format!("{text}next ?\n")).unwrap();
    fs::write(places.path("after/store-mark"), "next\n").unwrap();
    places.take("after").unwrap();
    places.take("old").unwrap_err();
    // An older copy of the data directory, or another coordinator: the store may have an unknown mark.
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
        let known = || Ok::<_, IdentityError>(vec![Piece { bytes: 9, ..blob.clone() }, blob.clone()]);
        Identity::take(&places.path(store), &places.path("data"), known, draw).map_err(|error| error.to_string())
    };
    for store in ["empty", "missing"] {
        let empty = take(store).unwrap_err();
        assert!(empty.contains("holds no checkpoint of this coordinator's") && empty.contains("store-id"), "{empty}");
        assert!(!places.path(store).join("store-id").exists());
    }
    assert!(!places.path("missing").exists());
    take("store").unwrap();
    // The message says how to give up the checkpoints.
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
    let other =
        Identity::take(&places.path("store"), &places.path("data2"), || Ok::<_, IdentityError>(Vec::new()), draw)
            .unwrap();
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
fn any_number_of_marks_takes_a_line_and_each_copy_is_older() {
    let places = Places::new();
    let mark = || fs::read_to_string(places.path("store/store-mark")).unwrap();
    let ours = places.take("store").unwrap();
    let mut copied = Vec::new();
    for _ in 0..40 {
        copied.push(mark());
        ours.mark().unwrap();
    }
    let kept = || fs::read_to_string(places.path("data/store-marks")).unwrap();
    assert_eq!(kept(), mark(), "the newest one alone");
    // If a mark could not be written into the store, the mark before it stays valid.
    let newest = mark();
    fs::rename(places.path("store"), places.path("unmounted")).unwrap();
    ours.mark().unwrap();
    fs::rename(places.path("unmounted"), places.path("store")).unwrap();
    assert_eq!((kept().lines().count(), mark()), (2, newest.clone()));
    ours.check().unwrap();
    ours.mark().unwrap();
    copied.push(newest);
    for older in &copied {
        fs::write(places.path("store/store-mark"), older).unwrap();
        assert!(matches!(ours.check(), Err(IdentityError::Older { .. })), "{older}");
        assert!(matches!(places.take("store"), Err(error) if error.contains("is an older copy")), "{older}");
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
    // As if the store had been full.
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
