//! The identity of the coordinator's store, and damaged blobs in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use lockstep_common::Domain;
use lockstep_common::manifest::Piece;
use lockstep_rpc::Save;
use lockstep_rpc::agent_message::Body as Say;

use crate::agent::{Agent, blob, block, finished, hello, said};
use crate::support::{Coordinator, copy, fails, run, wait_for};

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn a_coordinator_is_refused_another_store_than_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (state, store, other) = (dir.path().join("state"), dir.path().join("store"), dir.path().join("other"));
    let serve = |store: &Path| -> Vec<String> {
        ["serve", "--data-dir", text(&state), "--listen", "127.0.0.1:0", "--web-listen", "off", "--store", text(store)]
            .map(str::to_owned)
            .to_vec()
    };
    let refused = |store: &Path| fails(&serve(store).iter().map(String::as_str).collect::<Vec<_>>(), 6);
    Coordinator::start_with(&state, &["--store", text(&store)]).terminate();

    let missing = refused(&other);
    assert!(missing.contains("is not this coordinator's: there is no such directory"), "{missing}");
    assert!(!other.exists(), "nothing is made where nothing is mounted");
    fs::create_dir(&other).unwrap();
    let empty = refused(&other);
    assert!(empty.contains("it has no file `store-id`") && empty.contains(text(&other)), "{empty}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);

    // The hint's advice works.
    let remembered = state.join("store-id");
    assert!(
        empty.contains(&format!("hint: to use this store all the same, remove `{}`", remembered.display())),
        "{empty}"
    );
    fs::remove_file(&remembered).unwrap();
    Coordinator::start_with(&state, &["--store", text(&other)]).terminate();
    let [own, id] = [&store, &other].map(|store| fs::read_to_string(store.join("store-id")).unwrap());
    assert_eq!(fs::read_to_string(&remembered).unwrap(), id);
    let back = refused(&store);
    assert!(back.contains(&format!("it is the store `{}`", own.trim())) && back.contains(id.trim()), "{back}");
}

/// Any member of a shared store's group could create such a link.
#[test]
fn a_store_whose_directory_of_unfinished_files_is_a_link_is_refused_and_nothing_behind_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (state, store, precious) = (dir.path().join("state"), dir.path().join("store"), dir.path().join("precious"));
    Coordinator::start_with(&state, &["--store", text(&store)]).terminate();
    fs::create_dir(&precious).unwrap();
    for name in ["thesis.tex", ".tmpThesis"] {
        fs::write(precious.join(name), "mine").unwrap();
        let old = SystemTime::now() - Duration::from_hours(72);
        fs::File::options().append(true).open(precious.join(name)).unwrap().set_modified(old).unwrap();
    }
    fs::rename(store.join("tmp"), store.join("tmp.old")).unwrap();
    std::os::unix::fs::symlink(&precious, store.join("tmp")).unwrap();
    let serve = ["serve", "--data-dir", text(&state), "--listen", "127.0.0.1:0", "--web-listen", "off"];
    let refused = fails(&[&serve[..], &["--store", text(&store)]].concat(), 6);
    assert!(refused.contains("store/tmp`") && refused.contains("it is a symbolic link, not a directory"), "{refused}");
    assert_eq!(fs::read_dir(&precious).unwrap().count(), 2);
    // The message's advice works.
    fs::remove_file(store.join("tmp")).unwrap();
    Coordinator::start_with(&state, &["--store", text(&store)]).terminate();
}

#[tokio::test]
async fn nothing_is_taken_into_a_store_that_was_unmounted_and_no_node_joins() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let coordinator = Coordinator::start(&state);
    let [file, away] = ["table.csv", "away"].map(|name| dir.path().join(name));
    fs::write(&file, "a,b\n1,2\n").unwrap();
    // The directory under the mount point, with blobs from before it was mounted.
    fs::rename(state.join("store"), &away).unwrap();
    fs::create_dir_all(state.join("store/tmp")).unwrap();
    let refused = fails(&["data", "add", text(&file), "--addr", &coordinator.address], 3);
    assert!(refused.contains("is not this coordinator's: it has no file `store-id`"), "{refused}");
    let joined = Agent::open(&coordinator.address, Say::Hello(hello("node-a", "1", 1))).await;
    let status = joined.err().expect("a refusal");
    assert!(status.message().contains("is not this coordinator's: it has no file `store-id`"), "{status}");
    fs::remove_dir_all(state.join("store")).unwrap();
    fs::rename(&away, state.join("store")).unwrap();
    run(&["data", "add", text(&file), "--addr", &coordinator.address]);
}

#[test]
fn a_checkpoint_in_a_store_that_was_unmounted_is_not_committed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let coordinator = Coordinator::start_under(&["env", "LOCKSTEP_COORD_STORE__PATIENCE_MS=200"], &state, &[]);
    runtime.block_on(async {
        let (mut agent, run, p0) = Agent::trained(&coordinator, dir.path()).await;
        // The process's blobs are in the directory under the mount point.
        fs::remove_file(state.join("store/store-id")).unwrap();
        let share = agent.share(2, 0);
        agent.tell(&p0, 3, share).await;
        let reason = wait_for("the failure", || {
            coordinator.ask(&["show", &run])["failed_checkpoints"][0]["reason"].as_str().map(str::to_owned)
        });
        assert!(reason.contains("is not this coordinator's: it has no file `store-id`"), "{reason}");
    });
}

#[tokio::test]
async fn a_last_checkpoint_whose_description_is_too_long_is_rejected_and_may_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, run, p0) = Agent::trained(&coordinator, dir.path()).await;
    let share = Piece { digest: Domain::Blob.digest(b""), bytes: lockstep_rpc::MAX_SHARE_BYTES as u64 + 1 };
    agent.tell(&p0, 3, said(4, &share)).await;
    let rejected = Save { attempt: 1, ..Save::default() };
    agent.until_desired("the rejection", |assigned| assigned[0].save == rejected).await;
    agent.tell(&p0, 4, finished(4, 1)).await;
    let shown = coordinator.ask(&["show", &run]);
    assert_eq!(shown["status"], "unsaved", "{shown:#}");
    assert!(shown["reason"].as_str().unwrap().contains("the description of its share has 67108865 bytes"), "{shown:#}");
}

#[tokio::test]
async fn verify_of_a_checkpoint_finds_blobs_that_are_damaged_or_missing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let coordinator = Coordinator::start(&state);
    let (mut agent, run, p0) = Agent::trained(&coordinator, dir.path()).await;
    let mark = || fs::read_to_string(state.join("store/store-mark")).unwrap();
    let before = mark();
    let share = agent.share(4, 0);
    agent.tell(&p0, 3, share).await;
    agent.until_desired("the commit", |assigned| assigned[0].save.committed).await;
    assert_ne!(mark(), before, "a copy that was made before lacks it");
    agent.tell(&p0, 4, finished(4, 1)).await;

    let shown = coordinator.ask(&["show", &run]);
    let checkpoint = shown["checkpoints"][0]["id"].as_str().unwrap().to_owned();
    // An unmounted store is not reported as damage.
    fs::rename(state.join("store"), dir.path().join("away")).unwrap();
    fs::create_dir_all(state.join("store/tmp")).unwrap();
    let table = text(&dir.path().join("table")).to_owned();
    let twice = ["mirror", &run, "--csv", &table, "--parquet", &table, "--addr", &coordinator.address];
    assert!(fails(&twice, 2).contains("are one file"));
    let exported = dir.path().join("exported");
    for words in
        [&["verify", &checkpoint][..], &["resume", &checkpoint], &["export", &checkpoint, "--to", text(&exported)]]
    {
        let said = fails(&[words, &["--addr", &coordinator.address]].concat(), 3);
        assert!(said.contains("is not this coordinator's: it has no file `store-id`"), "{words:?}: {said}");
    }
    fs::remove_dir_all(state.join("store")).unwrap();
    fs::rename(dir.path().join("away"), state.join("store")).unwrap();
    let blob = blob(&state, 4);
    let damages = [
        (&b"evil"[..], "is corrupt"),
        (&b"e"[..], "is truncated: 1 bytes instead of 4"),
        (&b"evils"[..], "is too long: 5 bytes instead of 4"),
    ];
    for (bytes, words) in damages {
        fs::write(&blob, bytes).unwrap();
        let said = fails(&["verify", &checkpoint, "--addr", &coordinator.address], 8);
        assert!(said.contains("cannot be read: blob") && said.contains(words), "{said}");
        let said = fails(&["export", &checkpoint, "--to", text(&exported), "--addr", &coordinator.address], 8);
        assert!(said.contains(words) && !exported.exists(), "{said}");
    }
    fs::remove_file(&blob).unwrap();
    let said = fails(&["verify", &checkpoint, "--addr", &coordinator.address], 8);
    assert!(said.contains("is not in the store"), "{said}");
}

#[test]
fn data_that_is_added_again_heals_a_damaged_blob() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let coordinator = Coordinator::start(&state);
    let file = dir.path().join("x.npy");
    fs::write(&file, b"samples").unwrap();
    let add = || {
        let output = run(&["data", "add", text(&file), "--json", "--addr", &coordinator.address]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["stored"].as_u64().unwrap()
    };
    assert_eq!((add(), add()), (7, 0));
    let name = Domain::Blob.digest(b"samples").to_hex();
    let blob = state.join("store").join(&name[..2]).join(name);
    fs::write(&blob, b"samplex").unwrap();
    assert_eq!(add(), 7, "a damaged blob is none");
    assert_eq!(fs::read(&blob).unwrap(), b"samples");
}

/// The signal of the limit would end the process without a message.
#[test]
fn a_limit_on_the_size_of_files_is_an_error_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let serve = "ulimit -f 64; exec \"$0\" serve --data-dir \"$1\" --listen 127.0.0.1:0 --web-listen off";
    let output = Command::new("bash")
        .args(["-c", serve, env!("CARGO_BIN_EXE_coord"), text(&dir.path().join("state"))])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("File too large"), "{said}");
}

#[test]
fn data_that_the_stores_disk_has_no_room_for_is_this_machines_failure() {
    let dir = tempfile::tempdir().unwrap();
    let limited = ["bash", "-c", "ulimit -f 8192; exec \"$0\" \"$@\""];
    let coordinator = Coordinator::start_under(&limited, &dir.path().join("state"), &[]);
    let file = dir.path().join("x.npy");
    fs::write(&file, vec![7; 9 << 20]).unwrap();
    let said = fails(&["data", "add", text(&file), "--addr", &coordinator.address], 6);
    assert!(said.contains("File too large"), "{said}");
}

#[tokio::test]
async fn a_copy_of_the_store_from_before_a_cancelled_runs_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (state, old) = (dir.path().join("state"), dir.path().join("old"));
    let store = state.join("store");
    let coordinator = Coordinator::start(&state);
    let (mut agent, run, p0) = Agent::ready(&coordinator, dir.path(), 9).await;
    agent.tell(&p0, 2, block(1..=2, 1)).await;
    copy(&store, &old);
    let share = agent.share(2, 0);
    agent.tell(&p0, 3, share).await;
    wait_for("the checkpoint", || {
        (coordinator.ask(&["show", &run])["checkpoints"].as_array().unwrap().len() == 1).then_some(())
    });
    let mark = || fs::read(store.join("store-mark")).unwrap();
    let before = mark();
    assert!(crate::support::run(&["cancel", &run, "--addr", &coordinator.address]).status.success());
    wait_for("a new mark", || (mark() != before).then_some(()));
    coordinator.terminate();

    fs::rename(&store, dir.path().join("away")).unwrap();
    fs::rename(&old, &store).unwrap();
    let said = fails(&["serve", "--data-dir", text(&state), "--listen", "127.0.0.1:0", "--web-listen", "off"], 6);
    assert!(said.contains("is an older copy of this coordinator's"), "{said}");
}

/// Modes of all files and directories in `dir`, by path.
fn modes(dir: &Path) -> BTreeMap<PathBuf, u32> {
    let (mut found, mut open) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            found.insert(entry.path(), metadata.permissions().mode() & 0o7777);
            open.extend(Some(entry.path()).filter(|_| metadata.is_dir()));
        }
    }
    found
}

#[test]
fn state_is_its_users_alone_and_a_store_its_groups_where_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (state, store) = (dir.path().join("state"), dir.path().join("store"));
    // A directory that was created with open permissions.
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let add = |coordinator: &Coordinator, text: &str| {
        let file = dir.path().join(text);
        fs::write(&file, text).unwrap();
        let added = run(&["data", "add", file.to_str().unwrap(), "--addr", &coordinator.address]);
        assert!(added.status.success(), "{added:?}");
    };
    let private = |path: &Path| if path.is_dir() { 0o700 } else { 0o600 };
    let group = |path: &Path| if path.is_dir() { 0o2770 } else { 0o660 };
    let check = |dir: &Path, expected: &dyn Fn(&Path) -> u32| {
        for (path, mode) in modes(dir) {
            assert_eq!(mode, expected(&path), "{}: {mode:o}", path.display());
        }
    };
    // With the umask 0.
    let serve = |more: &[&str]| {
        let more = [&["--store", text(&store)], more].concat();
        Coordinator::start_under(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""], &state, &more)
    };
    let coordinator = serve(&[]);
    add(&coordinator, "one");
    check(&state, &private);
    check(&store, &private);
    coordinator.terminate();
    let config = dir.path().join("coordinator.toml");
    fs::write(&config, "[store]\ngroup = true\n").unwrap();
    // An unfinished file, of a writer that was killed two days ago.
    let left = store.join("tmp/.tmpLeft");
    let two_days_ago = SystemTime::now() - Duration::from_hours(48);
    fs::File::create(&left).unwrap().set_modified(two_days_ago).unwrap();
    let coordinator = serve(&["--config", text(&config)]);
    wait_for("an unfinished file to be deleted", || (!left.exists()).then_some(()));
    add(&coordinator, "two");
    check(&state, &private);
    check(&store, &group);
    assert_eq!(group(&store), fs::metadata(&store).unwrap().permissions().mode() & 0o7777);
    coordinator.terminate();
}
