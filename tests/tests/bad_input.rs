//! Bad input: a clear error with file and key or digest, the documented exit code, and no lost or incomplete files.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use lockstep_tests::{Cluster, digits, wait_for};
use serde_json::Value;

/// Runs `coord`, expects this exit code, and returns standard error.
fn refused(cluster: &Cluster, arguments: &[&str], code: i32) -> String {
    let output = cluster.coord(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// Submits with one override, expects the run to fail, and returns its reason.
fn fails(cluster: &Cluster, job: &str, set: &str) -> String {
    let run = cluster.submit(job, &["--set", set]);
    let view = cluster.ended(&run);
    assert_eq!(view["status"], "failed", "{set}: {view:#}");
    view["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_bad_job_file_is_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 0);
    let job = digits(dir.path());
    let submit = |set: &str| refused(&cluster, &["submit", job.argument(), "--set", set], 2);

    let said = submit("stepss=1");
    assert!(said.contains("unknown key `stepss`: did you mean `steps`?") && said.contains("job.toml"), "{said}");
    let said = submit("optimizer.lr=\"fast\"");
    assert!(said.contains("key `optimizer.lr`") && said.contains("job.toml"), "{said}");
    let said = submit("batch.size=97");
    assert!(said.contains("key `batch.size`: 97 is not divisible by `ranks` = 4"), "{said}");

    let said = refused(&cluster, &["submit", job.argument(), "--set", "data.path=\"nothing.csv\""], 2);
    assert!(said.contains("nothing.csv` does not exist"), "{said}");
    fs::write(dir.path().join("empty.csv"), "").unwrap();
    let said = refused(&cluster, &["submit", job.argument(), "--set", "data.path=\"empty.csv\""], 2);
    assert!(said.contains("empty.csv` is empty"), "{said}");
    let said = refused(&cluster, &["submit", "no-such-job.toml"], 2);
    assert!(said.contains("no-such-job.toml"), "{said}");
    assert!(cluster.ask(&["ps"]).as_array().unwrap().is_empty(), "nothing was submitted");
}

#[test]
fn names_that_mean_nothing_or_several_things_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    for arguments in
        [["show", "zzzz"], ["cancel", "zzzz"], ["logs", "zzzz"], ["resume", "0123abcd"], ["checkpoints", "zzzz"]]
    {
        let said = refused(&cluster, &arguments, 4);
        assert!(said.contains(arguments[1]), "{said}");
    }
    let run = cluster.submit(job.argument(), &["--set", "steps=100", "--set", "checkpoint.every_steps=2"]);
    cluster.finished(&run);
    let ids: Vec<String> = cluster.checkpoints(&run).into_iter().map(|(_, id)| id).collect();
    // Of fifty checkpoints, at least two share their first character.
    let prefix = ids.iter().map(|id| &id[..1]).find(|first| ids.iter().filter(|id| id.starts_with(*first)).count() > 1);
    let said = refused(&cluster, &["resume", prefix.unwrap()], 4);
    assert!(said.contains(" matches ") && said.contains("checkpoints: "), "{said}");
    let last = ids.last().unwrap();
    let said = refused(&cluster, &["resume", last], 3);
    assert!(said.contains("nothing is left to train"), "{said}");
    let said = refused(&cluster, &["cancel", &run], 3);
    assert!(said.contains("already ended"), "{said}");
}

#[test]
fn a_job_that_is_too_large_waits_with_a_reason_and_starts_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "world.min_processes=2"]);
    let view = cluster.show(&run);
    assert_eq!(view["status"], "queued");
    let reason = view["reason"].as_str().unwrap();
    assert!(reason.contains('2') && reason.contains('1'), "it says how many are needed and free: {reason}");
    cluster.add_worker();
    cluster.finished(&run);
}

#[test]
fn data_that_changed_since_submit_is_refused_by_name_with_both_digests() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &[]);
    let path = dir.path().join("digits.csv");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("5.0", "6.0", 1).replacen(",5,", ",6,", 1)).unwrap();
    assert_ne!(fs::read_to_string(&path).unwrap(), text);
    cluster.add_worker();
    let view = cluster.ended(&run);
    let reason = view["reason"].as_str().unwrap();
    assert_eq!(view["status"], "failed");
    assert!(reason.contains("digits.csv` has changed") && reason.matches("digest `").count() == 2, "{reason}");
}

/// Writes an endless job on `tokens.bin` in `dir`, with a checkpoint every few milliseconds. A `large` file is so large that processes map
/// it.
fn tokens(dir: &Path, large: bool) -> String {
    fs::write(dir.join("tokens.bin"), [1_u8, 2, 3, 200].repeat(1 << 18)).unwrap();
    if large {
        let file = File::options().write(true).open(dir.join("tokens.bin")).unwrap();
        file.set_len((256 << 20) + 4096).unwrap();
    }
    let gpt = dir.join("gpt.toml");
    let text = "name='gpt'\nsteps=100000000\nranks=2\nbatch={size=2}\noptimizer={kind='sgd', lr=0.1}\ncheckpoint={every_steps=50}\n\
                model={kind='gpt', layers=1, heads=1, width=8, context=8, vocabulary=256}\n\
                data={kind='tokens', path='tokens.bin'}\n";
    fs::write(&gpt, text).unwrap();
    gpt.to_str().unwrap().to_owned()
}

#[test]
fn data_that_is_overwritten_in_place_ends_the_run_before_a_checkpoint_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = tokens(dir.path(), false);
    let path = dir.path().join("tokens.bin");
    let run = cluster.submit(&job, &["--set", "world.processes=2"]);
    wait_for("a checkpoint", || (!cluster.checkpoints(&run).is_empty()).then_some(()));
    // Only the file's time changes: no error.
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let count = cluster.checkpoints(&run).len();
    wait_for("two more checkpoints", || (cluster.checkpoints(&run).len() > count + 1).then_some(()));
    File::options().write(true).open(&path).unwrap().write_all_at(&vec![7; 1 << 20], 0).unwrap();
    let view = cluster.ended(&run);
    let reason = view["reason"].as_str().unwrap();
    assert_eq!(view["status"], "failed");
    assert!(reason.contains("tokens.bin` changed during training: expected 1048576 bytes"), "{reason}");
    assert!(reason.matches("digest `").count() == 2 && reason.contains("put the file back"), "{reason}");

    // The hint of the error works: restore the file, then resume.
    let (step, last) = cluster.checkpoints(&run).last().unwrap().clone();
    fs::write(&path, [1_u8, 2, 3, 200].repeat(1 << 18)).unwrap();
    let resumed = cluster.resume(&last);
    wait_for("a step", || (cluster.show(&resumed)["step"].as_u64()? > step).then_some(()));
    cluster.run(&["cancel", &resumed]);
}

#[test]
fn a_mapped_file_that_is_changed_and_put_back_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let run = cluster.submit(&tokens(dir.path(), true), &[]);
    wait_for("a checkpoint", || (!cluster.checkpoints(&run).is_empty()).then_some(()));
    let file = File::options().write(true).open(dir.path().join("tokens.bin")).unwrap();
    file.write_all_at(&[7], 0).unwrap();
    file.write_all_at(&[1], 0).unwrap();
    let view = cluster.ended(&run);
    let reason = view["reason"].as_str().unwrap();
    assert!(view["status"] == "failed" && reason.contains("tokens.bin` was changed during training"), "{reason}");
    assert!(reason.contains("put back"), "{reason}");
}

#[test]
fn a_file_that_is_truncated_while_it_is_mapped_is_named_after_one_restart_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let run = cluster.submit(&tokens(dir.path(), true), &["--set", "checkpoint.every_steps=1000"]);
    wait_for("a checkpoint", || (!cluster.checkpoints(&run).is_empty()).then_some(()));
    File::options().write(true).open(dir.path().join("tokens.bin")).unwrap().set_len(4096).unwrap();
    let view = cluster.ended(&run);
    let reason = view["reason"].as_str().unwrap();
    assert!(view["status"] == "failed" && reason.contains("tokens.bin` "), "{reason}");
    assert!(reason.contains("changed") && reason.contains("found 4096 bytes with digest `"), "{reason}");
    assert!(view["generation"].as_u64().unwrap() <= 2, "{view:#}");
}

#[test]
fn what_only_the_process_can_see_fails_the_run_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path()).argument().to_owned();

    let reason = fails(&cluster, &job, "optimizer={kind=\"sgd\", lr=1e30}");
    assert!(reason.contains("the run stops, its last checkpoint is kept"), "{reason}");
    let reason = fails(&cluster, &job, "data.target=\"colour\"");
    assert!(reason.contains("colour") && reason.contains("digits.csv"), "{reason}");
    let reason = fails(&cluster, &job, "model.outputs=9");
    assert!(reason.contains('9'), "{reason}");
    fs::write(dir.path().join("not.pt"), "this is no TorchScript").unwrap();
    let reason = fails(&cluster, &job, "model={kind=\"torchscript\", path=\"not.pt\"}");
    assert!(reason.contains("not.pt"), "{reason}");
    fs::write(dir.path().join("tokens.bin"), [1_u8, 2, 3, 200].repeat(100)).unwrap();
    let gpt = dir.path().join("gpt.toml");
    let text = "name='gpt'\nsteps=2\nbatch={size=2}\nmodel={kind='gpt', layers=1, heads=1, width=8, context=8, vocabulary=100}\n\
                data={kind='tokens', path='tokens.bin'}\noptimizer={kind='sgd', lr=0.1}\n";
    fs::write(&gpt, text).unwrap();
    let run = cluster.submit(gpt.to_str().unwrap(), &[]);
    let view = cluster.ended(&run);
    let reason = view["reason"].as_str().unwrap();
    assert!(reason.contains("200") && reason.contains("tokens.bin"), "{reason}");
}

#[test]
fn a_flipped_a_truncated_and_a_lost_blob_are_refused_by_digest_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=20", "--set", "checkpoint.every_steps=10"]);
    cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run)[0].clone();
    let manifest: Value = serde_json::from_str(&cluster.run(&["manifest", &checkpoint])).unwrap();
    let digest = manifest["tensors"][0]["pieces"][0]["digest"].as_str().unwrap();
    let blob = cluster.store().join(&digest[..2]).join(digest);
    let whole = fs::read(&blob).unwrap();

    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (damage, word) in
        [(Some(flipped), "is corrupt"), (Some(whole[..whole.len() - 1].to_vec()), "is truncated"), (None, "is missing")]
    {
        match damage {
            Some(bytes) => fs::write(&blob, bytes).unwrap(),
            None => fs::remove_file(&blob).unwrap(),
        }
        let out = dir.path().join("out");
        for command in [&["resume", &checkpoint][..], &["export", &checkpoint, "--to", out.to_str().unwrap()]] {
            let output = cluster.coord(command);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(8), "{command:?}, {word}: {said}");
            assert!(said.contains(digest) && !out.exists(), "{command:?}, {word}: {said}");
        }
        let said = cluster.coord(&["resume", &checkpoint]).stderr;
        assert!(String::from_utf8_lossy(&said).contains(word), "{word}");
    }
    fs::write(&blob, whole).unwrap();
    cluster.finished(&cluster.resume(&checkpoint));
}

#[test]
fn a_store_that_cannot_be_written_fails_the_checkpoint_and_not_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=200000", "--set", "checkpoint.every_steps=500"]);
    wait_for("a checkpoint", || (!cluster.checkpoints(&run).is_empty()).then_some(()));
    // Replace the directory of temporary files by a file, so that every write fails.
    let tmp = cluster.store().join("tmp");
    fs::rename(&tmp, cluster.store().join("gone")).unwrap();
    fs::write(&tmp, "").unwrap();
    let failed = wait_for("a failed checkpoint", || cluster.show(&run)["failed_checkpoints"].get(0).cloned());
    assert!(failed["reason"].as_str().unwrap().contains("cannot write"), "{failed}");
    let count = cluster.checkpoints(&run).len();
    fs::remove_file(&tmp).unwrap();
    fs::create_dir(&tmp).unwrap();
    wait_for("the next checkpoint", || (cluster.checkpoints(&run).len() > count).then_some(()));
    assert_eq!(cluster.show(&run)["status"], "running");
    cluster.run(&["cancel", &run]);
}
