//! A run's id suffices to reproduce it, after its code and data have been deleted.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use lockstep_support::{dirty_tree, git};
use lockstep_tests::{Cluster, Job, digits};
use serde_json::Value;

/// Creates a repository with all kinds of uncommitted changes, and a job in it whose data is outside.
fn project(dir: &Path) -> Job {
    let root = dir.join("work/project");
    dirty_tree(&root);
    let (jobs, data) = (root.join("jobs"), dir.join("work/data"));
    fs::create_dir_all(&jobs).unwrap();
    fs::create_dir_all(&data).unwrap();
    let job = digits(&jobs);
    fs::rename(jobs.join("digits.csv"), data.join("digits.csv")).unwrap();
    let text = fs::read_to_string(&job.path).unwrap().replace("\"digits.csv\"", "\"../../data/digits.csv\"");
    Job::write(&jobs, &text)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_run_is_made_again_from_its_id_alone_here_and_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let job = project(dir.path());
    let commit = git(&dir.path().join("work/project"), &["rev-parse", "HEAD"]);
    let run = cluster.submit(job.argument(), &["--allow-dirty", "--keep-data", "--set", "steps=40"]);
    let state = cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run)[0].clone();
    fs::remove_dir_all(dir.path().join("work")).unwrap();

    let directories = ["again", "elsewhere"].map(|name| dir.path().join(name));
    for (directory, on) in directories.iter().zip([&[][..], &["--on", "local=2"]]) {
        let verdict = cluster.ask(&[&["reproduce", &run, path(directory)], on].concat());
        assert_eq!((&verdict["equal"], &verdict["last_step"]), (&Value::Bool(true), &40.into()), "{verdict:#}");
        assert_eq!((verdict["reproduced"].as_str(), verdict["recorded"].as_str()), (Some(&*state), Some(&*state)));
        assert_ne!(verdict["reproduction"], run.as_str());
        assert_eq!(git(directory, &["rev-parse", "HEAD"]), commit);
        assert!(directory.join("new/file").is_file() && !directory.join("deleted").exists());
        assert!(verdict["differences"].as_array().unwrap().is_empty(), "{verdict:#}");
    }
    // A resume needs only the checkpoint: the data is in the store.
    let resumed = cluster.resume(&checkpoint);
    assert_eq!(cluster.finished(&resumed), state);
    let verdict = cluster.ask(&["reproduce", &resumed, path(&dir.path().join("resumed"))]);
    assert_eq!((&verdict["equal"], &verdict["first_step"]), (&Value::Bool(true), &16.into()), "{verdict:#}");

    // A damaged copy of the data is refused.
    let digest = cluster.show(&run)["data"][0]["digest"].as_str().unwrap().to_owned();
    let copy: PathBuf = cluster.store().join(&digest[..2]).join(&digest);
    let mut bytes = fs::read(&copy).unwrap();
    bytes[1000] ^= 1;
    fs::write(&copy, bytes).unwrap();
    for (name, on) in [("damaged", &[][..]), ("damaged-here", &["--on", "local"])] {
        let output = cluster.coord(&[&["reproduce", &run, path(&dir.path().join(name))], on].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(&digest) && said.contains("is corrupt"), "{said}");
    }
}

#[test]
fn a_run_that_was_wrong_is_not_reproduced_and_the_first_difference_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 0);
    cluster.add_worker_with_fault(Some("struck:*:12:model/layers.1.weight:3:20"));
    let job = digits(dir.path());
    let sets = ["--set", "name=struck", "--set", "steps=30", "--set", "report.fingerprints_every=5"];
    let run = cluster.submit(job.argument(), &sets);
    cluster.finished(&run);
    cluster.restart_worker_with(0, &[]);

    // The job was outside of a work tree, and its data still exists at its path.
    let output = cluster.coord(&["reproduce", &run, path(&dir.path().join("again"))]);
    let (out, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(7), "{out}\n{said}");
    assert!(said.contains("was not submitted from a git work tree"), "{said}");
    assert!(out.contains("differs from its reproduction") && out.contains("at step 13"), "{out}");
    assert!(out.contains("numerics that differ:") && out.contains("fault"), "{out}");
}

#[test]
fn what_is_kept_is_listed_once_stored_once_and_missed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let data = dir.path().join("data");
    fs::create_dir_all(data.join("more")).unwrap();
    fs::write(data.join("b"), b"abc").unwrap();
    fs::write(data.join("more/a"), vec![7; 5 << 20]).unwrap();
    let add = |what: &[&Path]| {
        cluster.ask(&[&["data", "add"], &what.iter().map(|at| path(at)).collect::<Vec<_>>()[..]].concat())
    };
    let first = add(&[&data]);
    assert_eq!(first["stored"], (5 << 20) + 3);
    assert_eq!(first["files"][0]["digest"], "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
    let second = add(&[&data.join("more"), &data.join("b"), &data.join("b")]);
    assert_eq!((&second["stored"], &second["digest"]), (&0.into(), &first["digest"]), "the same set in another order");

    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=5"]);
    cluster.finished(&run);
    fs::remove_file(dir.path().join("digits.csv")).unwrap();
    let missed = cluster.coord(&["reproduce", &run, path(&dir.path().join("again"))]);
    let said = String::from_utf8(missed.stderr).unwrap();
    assert!(!missed.status.success() && said.contains("digits.csv` does not exist"), "{said}");
    assert!(said.contains("coord data add"), "{said}");
}
