//! A disk that is full while a checkpoint is written: a real file system of one megabyte, in a mount namespace of its own.

use std::process::Command;

use lockstep_tests::{binary, digits};
use serde_json::Value;

#[test]
fn a_full_disk_fails_the_checkpoint_and_not_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let job = digits(dir.path());
    let data = dir.path().join("data");
    let store = data.join("store");
    std::fs::create_dir_all(&store).unwrap();
    // `$0` is the store, the rest is the command.
    let script = "mount -t tmpfs -o size=1m tmpfs \"$0\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(&store)
        .arg(binary("coord"))
        .args(["submit", job.argument(), "--local", "1", "--json", "--set", "world.processes=1"])
        // Weights and momentum take 1.2 MB.
        .args(["--set", "model.hidden=[2048]", "--set", "steps=40", "--data-dir"])
        .arg(&data)
        .output()
        .expect("unshare(1) belongs to every Linux system");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let view: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&view["status"], &view["step"]), (&"finished".into(), &40.into()), "the run goes on: {view:#}");
    assert_eq!(view["checkpoints"].as_array().unwrap().len(), 0, "{view:#}");
    let failed = view["failed_checkpoints"].as_array().unwrap();
    let steps: Vec<_> = failed.iter().map(|failed| failed["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [17, 34, 40], "{view:#}");
    let reason = failed[0]["reason"].as_str().unwrap();
    assert!(reason.contains("cannot write") && reason.contains("No space left on device"), "{reason}");
}
