//! Data that DVC tracks: it is fetched automatically, compared with DVC's record, and restored with the run.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use lockstep_support::{commit, git, printed, tool};
use lockstep_tests::{Cluster, digits};

/// Runs the real DVC without the user's and the system's configuration.
fn dvc(dir: &Path, arguments: &[&str]) -> String {
    let home = dir.parent().unwrap().join("home");
    let mut command = Command::new(tool("dvc"));
    command.current_dir(dir).args(arguments).env("HOME", &home).env("DVC_NO_ANALYTICS", "1");
    for name in ["DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"] {
        command.env(name, &home);
    }
    printed(&mut command)
}

#[test]
fn data_comes_from_dvcs_remote_is_what_was_recorded_and_comes_back_with_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (root, remote) = (dir.path().join("project"), dir.path().join("remote"));
    fs::create_dir(&root).unwrap();
    git(&root, &["init", "-q", "-b", "main"]);
    dvc(&root, &["init", "--quiet"]);
    dvc(&root, &["remote", "add", "--quiet", "--default", "store", remote.to_str().unwrap()]);
    let (job, csv) = (digits(&root), root.join("digits.csv"));
    dvc(&root, &["add", "--quiet", "digits.csv"]);
    dvc(&root, &["push", "--quiet"]);
    commit(&root, "data by its md5");
    let contents = fs::read(&csv).unwrap();
    fs::remove_file(&csv).unwrap();
    fs::remove_dir_all(root.join(".dvc/cache")).unwrap();

    let cluster = Cluster::start(dir.path(), 1);
    let run = cluster.submit(job.argument(), &["--set", "steps=20"]);
    let state = cluster.finished(&run);
    assert!(fs::read(&csv).unwrap() == contents);
    assert!(dvc(&root, &["status"]).contains("up to date"));

    // The file's digest is cached by now; a changed record must still be noticed.
    let record = fs::read_to_string(root.join("digits.csv.dvc")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.finished(&cluster.submit(job.argument(), &["--set", "steps=20"]));
    let (_, rest) = record.split_once("md5: ").unwrap();
    fs::write(root.join("digits.csv.dvc"), record.replacen(&rest[..32], &"7".repeat(32), 1)).unwrap();
    git(&root, &["commit", "-aqm", "another record"]);
    let refused = cluster.coord(&["submit", job.argument()]);
    assert_eq!(refused.status.code(), Some(3), "{}", String::from_utf8_lossy(&refused.stderr));
    git(&root, &["revert", "--no-edit", "HEAD"]);

    // A reproduction also fetches its data through DVC.
    let again = dir.path().join("again");
    fs::remove_file(&csv).unwrap();
    let verdict = cluster.ask(&["reproduce", &run, again.to_str().unwrap()]);
    assert_eq!((&verdict["equal"], verdict["recorded"].as_str()), (&true.into(), Some(&*state)), "{verdict:#}");
    assert!(fs::read(again.join("digits.csv")).unwrap() == contents);

    let text = String::from_utf8(contents).unwrap();
    fs::write(&csv, text.replacen("\n0,0,5,13,", "\n0,0,6,13,", 1)).unwrap();
    let refused = cluster.coord(&["submit", job.argument()]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(
        said.contains("digits.csv: md5 ") && said.contains("dvc commit") && said.contains("--allow-dirty"),
        "{said}"
    );
    let taken = cluster.submit(job.argument(), &["--set", "steps=20", "--allow-dirty"]);
    assert_ne!(cluster.finished(&taken), state);

    fs::remove_file(&csv).unwrap();
    fs::remove_dir_all(root.join(".dvc/cache")).unwrap();
    fs::remove_dir_all(remote.join("files")).unwrap();
    let missed = cluster.coord(&["submit", job.argument()]);
    let said = String::from_utf8(missed.stderr).unwrap();
    assert_eq!(missed.status.code(), Some(6), "{said}");
    assert!(said.contains("digits.csv") && said.contains("store"), "{said}");
    assert!(!csv.exists());
}

#[test]
fn data_as_of_a_revision_is_dvcs_or_gits_of_that_commit_and_the_work_tree_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (root, plain) = (dir.path().join("project"), dir.path().join("plain"));
    for root in [&root, &plain] {
        fs::create_dir(root).unwrap();
        git(root, &["init", "-q", "-b", "main"]);
    }
    dvc(&root, &["init", "--quiet"]);
    let (job, csv) = (digits(&root), root.join("digits.csv"));
    let old = fs::read_to_string(&csv).unwrap();
    let new = old.replacen("\n0,0,5,13,", "\n0,0,6,13,", 1);
    let other = digits(&plain);
    for text in [&old, &new] {
        fs::write(&csv, text).unwrap();
        fs::write(plain.join("digits.csv"), text).unwrap();
        dvc(&root, &["add", "--quiet", "digits.csv"]);
        for root in [&root, &plain] {
            commit(root, "data");
        }
    }
    git(&root, &["tag", "v1", "HEAD~1"]);
    let cluster = Cluster::start(dir.path(), 1);
    let states = ["v1", "v1^0", "main"].map(|rev| {
        let run = cluster.submit(job.argument(), &["--set", "steps=20", "--set", &format!("data.rev={rev}")]);
        (cluster.finished(&run), run)
    });
    assert!(states[0].0 == states[1].0 && states[0].0 != states[2].0);
    let now = cluster.submit(job.argument(), &["--set", "steps=20"]);
    assert_eq!(cluster.finished(&now), states[2].0);
    let of_git = cluster.submit(other.argument(), &["--set", "steps=20", "--set", "data.rev=HEAD~1"]);
    assert_eq!(cluster.finished(&of_git), states[0].0);
    assert!(fs::read_to_string(&csv).unwrap() == new && dvc(&root, &["status"]).contains("up to date"));

    for root in [&root, &plain] {
        fs::remove_dir_all(root).unwrap();
    }
    for (name, run) in [("a", &states[0].1), ("b", &of_git)] {
        let verdict = cluster.ask(&["reproduce", run, dir.path().join(name).to_str().unwrap()]);
        assert_eq!(
            (&verdict["equal"], verdict["recorded"].as_str()),
            (&true.into(), Some(&*states[0].0)),
            "{verdict:#}"
        );
    }
    let again = dir.path().join("b/job.toml");
    for (rev, words) in [("v9", "v9"), ("HEAD", "absent.csv` is neither a file of git nor an output of DVC at `HEAD`")]
    {
        let sets = ["--set", &format!("data.rev={rev}"), "--set", "data.path=absent.csv"];
        let refused = cluster.coord(&[&["submit", again.to_str().unwrap()], &sets[..]].concat());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains(words), "{said}");
    }
}
