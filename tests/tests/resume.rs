//! A resume with changed data, code or machine is refused with both values and the override. An accepted difference is recorded in all
//! later checkpoints.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;

use lockstep_tests::{Cluster, digits};
use serde_json::Value;

fn overrides(of: &Value) -> Vec<String> {
    let keys = of["overrides"].as_array().unwrap().iter();
    keys.map(|one| one["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn another_machine_is_refused_and_what_was_accepted_is_said_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=40"]);
    cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run)[0].clone();

    cluster.restart_worker_with(0, &[("MKL_CBWR", "COMPATIBLE")]);
    let refused = cluster.resume(&checkpoint);
    let reason = cluster.ended(&refused)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("`env.MKL_CBWR` is `(not set)` for checkpoint"), "{reason}");
    let (_, way) = reason.split_once("`coord ").unwrap();
    let way: Vec<&str> = way.trim_end_matches('`').split(' ').collect();
    assert_eq!((way[0], &way[2..]), ("resume", &["--accept", "numerics.env.MKL_CBWR"][..]), "{reason}");
    // Accepting another key does not help, and an unknown kind of key is refused at once.
    let other = cluster.run(&["resume", &checkpoint, "--accept", "numerics.env.MKL"]);
    assert_eq!(cluster.ended(other.trim())["status"], "failed");
    let nonsense = cluster.coord(&["resume", &checkpoint, "--accept", "weather"]);
    assert_eq!(nonsense.status.code(), Some(2), "{nonsense:?}");

    let accepted = cluster.run(&way).trim().to_owned();
    cluster.finished(&accepted);
    assert_eq!(overrides(&cluster.show(&accepted)), ["numerics.env.MKL_CBWR"]);
    let anew = cluster.coord(&["reproduce", &accepted, dir.path().join("anew").to_str().unwrap()]);
    let said = String::from_utf8(anew.stderr).unwrap();
    assert!(
        anew.status.code() == Some(3) && said.contains("an accepted difference: `numerics.env.MKL_CBWR` was"),
        "{said}"
    );
    let (_, after) = cluster.checkpoints(&accepted)[0].clone();
    let manifest: Value = serde_json::from_str(&cluster.run(&["manifest", &after])).unwrap();
    assert_eq!(manifest["overrides"][0]["now"], "COMPATIBLE");

    // A difference that cannot change bits causes only a note.
    let fault = "another-job:*:1:x:0:0";
    cluster.restart_worker_with(0, &[("MKL_CBWR", "COMPATIBLE"), ("LOCKSTEP_FAULT", fault)]);
    let noted = cluster.resume(&after);
    cluster.finished(&noted);
    let output = cluster.coord(&["show", &noted]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!(
            "note: fault differs from the checkpoint, and is not known to change bits: was `(not set)`, is `{fault}`"
        )),
        "{said}"
    );
    assert!(!String::from_utf8(cluster.coord(&["show", &accepted]).stderr).unwrap().contains("fault"));

    // On the same machine, a further resume needs no override, but still lists the earlier one.
    let next = cluster.resume(&after);
    cluster.finished(&next);
    assert_eq!(overrides(&cluster.show(&next)), ["numerics.env.MKL_CBWR"]);
    let lineage = cluster.run(&["lineage", &next]);
    let line = "accepted: numerics.env.MKL_CBWR was `(not set)`, is `COMPATIBLE`";
    assert_eq!(lineage.matches(line).count(), 3, "{lineage}");
    let environment = cluster.run(&["show", &next, "--environment"]);
    assert!(environment.contains("numerics.env.MKL_CBWR  COMPATIBLE"), "{environment}");
}

#[test]
fn changed_data_is_refused_or_taken_by_name_and_moved_data_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let job = digits(&place);
    let run = cluster.submit(job.argument(), &["--set", "steps=40"]);
    let state = cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run)[0].clone();

    let moved = dir.path().join("moved");
    fs::rename(&place, &moved).unwrap();
    let found = cluster.run(&["resume", &checkpoint, "--base-dir", moved.to_str().unwrap()]);
    assert_eq!(cluster.finished(found.trim()), state);
    assert!(overrides(&cluster.show(found.trim())).is_empty(), "the same data in another place");

    let csv = moved.join("digits.csv");
    let text = fs::read_to_string(&csv).unwrap();
    fs::write(&csv, text.replacen("\n0,0,5,13,", "\n0,0,6,13,", 1)).unwrap();
    let resume = ["resume", &checkpoint, "--base-dir", moved.to_str().unwrap()];
    let refused = cluster.coord(&resume);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    let digest = cluster.show(&run)["data"][0]["digest"].as_str().unwrap().to_owned();
    assert!(said.contains(&digest) && said.contains("`--accept data.digits.csv`"), "{said}");
    let mistyped = cluster.coord(&[&resume[..], &["--accept", "data.digit.csv"]].concat());
    let said = String::from_utf8(mistyped.stderr).unwrap();
    let words = "`--accept data.digit.csv`: the run has no such data; it has `data.digits.csv`";
    assert!(mistyped.status.code() == Some(2) && said.contains(words), "{said}");

    let accepted = cluster.run(&[&resume[..], &["--accept", "data.digits.csv"]].concat()).trim().to_owned();
    assert_ne!(cluster.finished(&accepted), state);
    let view = cluster.show(&accepted);
    assert_eq!(overrides(&view), ["data.digits.csv"]);
    assert!(view["overrides"][0]["was"].as_str().unwrap().contains(&digest), "{view:#}");
}

#[test]
fn accepted_data_of_another_length_is_resumed_at_positions_derived_anew_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=40", "--set", "world.processes=2"]);
    cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run)[1].clone();
    let csv = dir.path().join("digits.csv");
    let text = fs::read_to_string(&csv).unwrap();
    // With a quarter of the rows, an epoch has fewer steps; with one row less, it has as many.
    for rows in [450, text.lines().count() - 1] {
        let fewer: Vec<&str> = text.lines().take(rows).collect();
        fs::write(&csv, fewer.join("\n") + "\n").unwrap();
        let refused = cluster.coord(&["resume", &checkpoint]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("`--accept data.digits.csv`"), "{said}");
        let accepted = cluster.run(&["resume", &checkpoint, "--accept", "data.digits.csv"]).trim().to_owned();
        cluster.finished(&accepted);
        let view = cluster.show(&accepted);
        assert_eq!(overrides(&view), ["data.digits.csv", "data.positions"], "{rows} rows");
        let positions = &view["overrides"][1];
        let word = |key: &str| positions[key].as_str().unwrap().to_owned();
        assert!(word("was").starts_with("epoch 1, sample ") && word("now") != word("was"), "{positions}");
        let (_, after) = cluster.checkpoints(&accepted).last().unwrap().clone();
        let manifest: Value = serde_json::from_str(&cluster.run(&["manifest", &after])).unwrap();
        assert_eq!(manifest["overrides"][1]["key"], "data.positions");
        // From then on, the changed data is the run's data, so verification succeeds.
        assert_eq!(cluster.coord(&["verify", &accepted]).status.code(), Some(0), "{rows} rows");
        // The run's id does not name the data of its first steps, so it cannot be reproduced.
        let again = cluster.coord(&["reproduce", &accepted, dir.path().join("again").to_str().unwrap()]);
        let said = String::from_utf8(again.stderr).unwrap();
        assert_eq!(again.status.code(), Some(3), "{said}");
        assert!(
            said.contains("`data.digits.csv` was") && said.contains(&format!("`coord verify {accepted}`")),
            "{said}"
        );
    }
}
