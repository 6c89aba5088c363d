//! What a power cut would leave, judged by the system calls of a worker, which strace(1) traces.
//!
//! A file name is durable once its directory has been synced after the rename that created it.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_tests::{Cluster, digits};
use serde_json::Value;

/// Whether strace(1) works here; if not, prints `SKIPPED`.
#[expect(clippy::print_stderr, reason = "what was not tested is to be seen")]
fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-f", "-y", "-e", "trace=fsync", "-o", "/dev/null", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("SKIPPED: strace(1) is not installed, or the system does not allow it to trace");
    }
    can
}

/// A cluster with one worker under strace(1), with `more` arguments of strace, and the path of the trace of its syncs and renames.
fn traced(dir: &Path, more: &[&str]) -> (Cluster, PathBuf) {
    let trace = dir.join("trace");
    let mut cluster = Cluster::start(dir, 0);
    // Create the worker's data directory and id beforehand, because creating them also syncs.
    std::fs::create_dir(dir.join("node-0")).unwrap();
    std::fs::write(dir.join("node-0/agent.id"), "0123456789abcdef0123456789abcdef").unwrap();
    let calls = ["strace", "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2"];
    cluster.add_worker_under(&[&calls, more, &["-o", trace.to_str().unwrap()]].concat());
    (cluster, trace)
}

/// The calls of a trace in the order of their ends, one per line. In the trace itself, a call that another thread interrupts has two
/// lines.
fn calls(trace: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(trace).unwrap();
    let (mut begun, mut calls) = (BTreeMap::new(), Vec::new());
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        if let Some(beginning) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, beginning);
        } else if let Some((_, end)) = call.split_once("resumed>") {
            calls.push(format!("{}{end}", begun.remove(thread).unwrap_or_default()));
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

/// Digests of the blobs of a run's last checkpoint.
fn blobs(cluster: &Cluster, run: &str) -> BTreeSet<String> {
    let (_, checkpoint) = cluster.checkpoints(run).pop().unwrap();
    let manifest: Value = serde_json::from_str(&cluster.run(&["manifest", &checkpoint])).unwrap();
    let digest = |piece: &Value| piece["digest"].as_str().unwrap().to_owned();
    let tensors =
        manifest["tensors"].as_array().unwrap().iter().flat_map(|tensor| tensor["pieces"].as_array().unwrap());
    let ranks = manifest["ranks"].as_array().unwrap().iter();
    let generators = ranks.flat_map(|rank| rank["generators"].as_object().unwrap().values());
    tensors.chain(generators).map(digest).collect()
}

/// Index in `calls` of the last rename that gave a blob its name.
fn named(calls: &[String], blob: &str) -> Option<usize> {
    calls.iter().rposition(|call| call.contains("rename") && call.contains(&format!("{blob}\"")))
}

/// Whether the directory of a blob was synced successfully after the call at `from`.
fn synced_after(calls: &[String], from: usize, store: &Path, blob: &str) -> bool {
    let directory = format!("<{}>", store.join(&blob[..2]).display());
    let of = |call: &String| call.contains("fsync(") && call.contains(&directory);
    calls[from..].iter().any(|call| of(call) && !call.contains("EIO"))
}

const SHORT: [&str; 6] = ["--set", "steps=5", "--set", "world.processes=1", "--set", "checkpoint.every_steps=0"];

#[test]
fn the_names_of_a_committed_checkpoint_are_durable_also_of_blobs_that_were_there() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (cluster, trace) = traced(&dir, &[]);
    let job = digits(&dir);
    let (first, store) = (cluster.submit(job.argument(), &SHORT), cluster.store());
    cluster.finished(&first);
    let before = calls(&trace);
    let all = blobs(&cluster, &first);
    assert!(all.len() > 5, "{all:?}");
    for blob in &all {
        let at = named(&before, blob).unwrap_or_else(|| panic!("no rename gave {blob} its name"));
        assert!(synced_after(&before, at, &store, blob), "the name of {blob} is not durable");
    }
    // The blob's directory may be new, so its own name must be durable, too.
    let last = all.iter().filter_map(|blob| named(&before, blob)).max().unwrap();
    let of_store = |call: &String| call.contains("fsync(") && call.contains(&format!("<{}>", store.display()));
    assert!(before[last..].iter().any(of_store), "the names of the blobs' directories are not durable");

    // The same bits again: nothing is written, but the first writer could have ended before it synced the directories.
    let second = cluster.submit(job.argument(), &SHORT);
    cluster.finished(&second);
    assert_eq!(blobs(&cluster, &second), all);
    let after = calls(&trace);
    let new = &after[before.len()..];
    for blob in &all {
        assert_eq!(named(new, blob), None, "it was there");
        assert!(synced_after(new, 0, &store, blob), "the name of {blob}, which was found, may not be durable");
    }
}

#[test]
fn a_checkpoint_whose_sync_failed_is_written_into_new_files() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    // The first fsync of each thread fails; the checkpoint's first ones sync directories.
    let (cluster, trace) = traced(&dir, &["-e", "inject=fsync:error=EIO:when=1"]);
    let run = cluster.submit(digits(&dir).argument(), &SHORT);
    cluster.finished(&run);
    let view = cluster.show(&run);
    let failed = &view["failed_checkpoints"][0];
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("cannot sync") && reason.contains("Input/output error"), "{reason}");
    assert_eq!((&failed["step"], &failed["attempts"]), (&5.into(), &1.into()), "{view:#}");
    let (calls, store) = (calls(&trace), cluster.store());
    let of_store = |call: &String| call.contains("EIO") && call.contains(&format!("<{}", store.display()));
    let broken = calls.iter().position(of_store).expect("a sync of the store failed");
    for blob in blobs(&cluster, &run) {
        let at = named(&calls, &blob).unwrap();
        assert!(at > broken, "{blob} keeps the name that it had before the failed sync");
        assert!(synced_after(&calls, at, &store, &blob), "the name of {blob} is not durable");
    }
}
