//! Work trees in unusual states at submit, and commits that the coordinator does not store.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs::{self, File};
use std::path::Path;

use lockstep_support::{commit, git};
use lockstep_tests::{Cluster, Job, digits};

fn project(root: &Path) -> Job {
    fs::create_dir_all(root).unwrap();
    let job = digits(root);
    commit(root, "a job");
    job
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_commit_too_large_to_keep_comes_from_its_remote_or_a_clone_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 0);
    let (root, published) = (dir.path().join("work"), dir.path().join("published.git"));
    let job = project(&root);
    git(dir.path(), &["clone", "-q", "--bare", path(&root), path(&published)]);
    let remote = format!("file://{}", published.display());
    git(&root, &["remote", "add", "origin", &remote]);
    let run = cluster.submit(job.argument(), &["--code-limit", "0"]);
    let kept = git(&root, &["rev-parse", "HEAD"]);
    // A later commit, and a shallow clone that contains only that one.
    fs::write(root.join("later"), "x").unwrap();
    commit(&root, "later");
    git(&root, &["push", "-q", "origin", "main"]);
    let shallow = dir.path().join("shallow");
    git(dir.path(), &["clone", "-q", "--depth", "1", &remote, path(&shallow)]);
    let whole = dir.path().join("whole");
    fs::rename(&root, &whole).unwrap();

    let fetched = dir.path().join("fetched");
    cluster.run(&["checkout", &run, path(&fetched)]);
    assert_eq!(git(&fetched, &["rev-parse", "HEAD"]), kept);
    assert!(fetched.join("digits.csv").is_file() && !fetched.join("later").exists());
    fs::remove_dir_all(&published).unwrap();
    let again = dir.path().join("again");
    let refused = cluster.coord(&["checkout", &run, path(&again), "--repository", path(&shallow)]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("cannot fetch commit `{kept}` from `{remote}`")), "{said}");
    assert!(said.contains("--repository") && !again.exists(), "{said}");
    cluster.run(&["checkout", &run, path(&again), "--repository", path(&whole)]);
    assert_eq!(git(&again, &["status", "--porcelain"]), "");
}

#[test]
fn a_detached_head_is_as_good_as_a_branch_and_what_cannot_be_kept_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 0);
    let root = dir.path().join("work");
    let job = project(&root);
    git(&root, &["checkout", "-q", "--detach"]);
    let run = cluster.submit(job.argument(), &[]);
    let view = cluster.show(&run);
    assert_eq!(view["code"]["commit"].as_str(), Some(&*git(&root, &["rev-parse", "HEAD"])));
    assert!(view["code"]["branch"].is_null() && view["code"]["dirty"] == false, "{view:#}");

    File::create(root.join("huge")).unwrap().set_len(10 << 30).unwrap();
    let refused = cluster.coord(&["submit", job.argument(), "--allow-dirty"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("huge` (10737418240 bytes)") && said.contains("--code-limit"), "{said}");
    fs::remove_file(root.join("huge")).unwrap();

    let runs = cluster.ask(&["ps"]).as_array().unwrap().len();
    git(&root, &["checkout", "-q", "-b", "side"]);
    fs::write(root.join("x"), "side").unwrap();
    commit(&root, "side");
    git(&root, &["checkout", "-q", "main"]);
    fs::write(root.join("x"), "main").unwrap();
    commit(&root, "main");
    git(&root, &["merge", "-q", "-X", "theirs", "--no-commit", "side"]);
    let refused = cluster.coord(&["submit", job.argument(), "--allow-dirty"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("is in the middle of a merge"), "{said}");
    assert_eq!(cluster.ask(&["ps"]).as_array().unwrap().len(), runs, "nothing was submitted");
}
