//! A node that does not see the coordinator's store, in a mount namespace of its own.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use lockstep_support::{Outcome, in_mount_namespace};
use lockstep_tests::{Cluster, DEADLINE, digits};

/// Starts a worker after `script`, which gets the store's directory as `$0`; returns exit code and standard error.
fn refused(cluster: &mut Cluster, index: usize, script: &str) -> (i32, String) {
    let store = cluster.store();
    let script = format!("{script} && exec \"$@\"");
    cluster.add_worker_under(&["unshare", "--mount", "sh", "-c", &script, store.to_str().unwrap()]);
    let Outcome { code, said, .. } = cluster.worker_process(index).end(DEADLINE);
    (code, said)
}

#[test]
fn a_node_that_does_not_see_the_store_is_refused_before_it_takes_any_work() {
    if !in_mount_namespace("a_node_that_does_not_see_the_store_is_refused_before_it_takes_any_work") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    let store = cluster.store().canonicalize().unwrap().display().to_string();

    // Another file system at the same path, as on a machine with a store of its own.
    let (code, said) = refused(&mut cluster, 0, "mount -t tmpfs tmpfs \"$0\" && mkdir \"$0/tmp\"");
    assert_eq!(code, 3, "{said}");
    let words = format!(
        "node `node-0` does not share the store: it is `{store}` on the coordinator's machine, and the node looked at `{store}` on "
    );
    assert!(said.contains(&words) && said.contains("mount the same directory on both machines"), "{said}");

    // The directory does not exist: the worker must not create it.
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (code, said) = refused(&mut cluster, 1, &format!("mount --bind '{}' \"$0/..\"", empty.display()));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("No such file or directory"), "{said}");
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "the worker made a store for itself");

    // The worker can read the store, but not write.
    let read_only = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    let (code, said) = refused(&mut cluster, 2, read_only);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("the node cannot write") && said.contains("Read-only file system"), "{said}");

    assert_eq!(cluster.ask(&["nodes"]), serde_json::json!([]));
    let left = std::fs::read_dir(cluster.store().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "files of the check are removed");

    // A worker that shares the store is accepted, and trains.
    cluster.add_worker_under(&["env"]);
    let run = cluster.submit(digits(dir.path()).argument(), &["--set", "steps=5", "--set", "world.processes=1"]);
    cluster.finished(&run);
    assert_eq!(cluster.checkpoints(&run).len(), 1);
}
