//! A run's id suffices to restore its code, including uncommitted changes of the work tree.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lockstep_support::{dirty_tree, git, printed};
use lockstep_tests::{Cluster, digits};

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_dirty_tree_is_refused_or_kept_whole_and_comes_back_from_the_runs_id_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let root = dir.path().join("work/project");
    dirty_tree(&root);
    fs::create_dir(root.join("jobs")).unwrap();
    let job = digits(&root.join("jobs"));
    let short = ["--set", "steps=20"];

    let refused = cluster.coord(&[&["submit", job.argument()], &short[..]].concat());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    for name in ["edited", "deleted", "mode", "binary", "new/file", "jobs/job.toml", "library"] {
        assert!(said.contains(&format!("\n    {name}")), "{name}: {said}");
    }
    fs::write(root.join("large"), vec![7; 2 << 20]).unwrap();
    let refused = cluster.coord(&["submit", job.argument(), "--allow-dirty", "--code-limit", "1"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("large` (2097152 bytes)") && said.contains("--code-limit"), "{said}");
    fs::remove_file(root.join("large")).unwrap();
    assert!(cluster.ask(&["ps"]).as_array().unwrap().is_empty(), "nothing was submitted");

    let run = cluster.submit(job.argument(), &[&["--allow-dirty"], &short[..]].concat());
    let state = cluster.finished(&run);
    let code = &cluster.show(&run)["code"];
    assert_eq!(code["commit"], git(&root, &["rev-parse", "HEAD"]));
    assert_eq!((&code["dirty"], &code["tags"][0], &code["directory"]), (&true.into(), &"v1".into(), &"jobs".into()));

    let kept = dir.path().join("kept");
    fs::rename(dir.path().join("work"), &kept).unwrap();
    let again = dir.path().join("again");
    let report = cluster.ask(&["checkout", &run, again.to_str().unwrap()]);
    let mut differ = Command::new("diff");
    printed(differ.args(["-r", "--no-dereference", "--exclude=.git"]).args([&kept.join("project"), &again]));
    for dir in [again.clone(), again.join("library")] {
        assert_eq!(fs::metadata(dir.join("mode")).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(fs::read_dir(dir.join("new/empty")).unwrap().next().is_none());
    }
    assert_eq!(report["job_directory"], again.join("jobs").to_str().unwrap());

    let occupied = cluster.coord(&["checkout", &run, again.to_str().unwrap()]);
    assert_eq!(occupied.status.code(), Some(2), "{}", String::from_utf8_lossy(&occupied.stderr));
    // The restored tree trains to the same bits.
    let rebuilt = again.join("jobs/job.toml");
    let second = cluster.submit(rebuilt.to_str().unwrap(), &[&["--allow-dirty"], &short[..]].concat());
    assert_eq!(cluster.finished(&second), state);
    let trees = [&run, &second].map(|run| cluster.show(run)["code"]["tree"].clone());
    assert_eq!(trees[0]["bytes"], trees[1]["bytes"], "the same tree");

    let found = |arguments: &[&str]| -> Vec<String> {
        let rows = cluster.ask(&[&["runs"], arguments].concat());
        rows.as_array().unwrap().iter().map(|row| row["run"].as_str().unwrap().to_owned()).collect()
    };
    let commit = cluster.show(&run)["code"]["commit"].as_str().unwrap().to_owned();
    assert_eq!(found(&["--commit", "v1"]), [run.as_str()], "the clone has no tags");
    assert_eq!(found(&["--commit", &commit[..8], "--data", "digits.csv", "--where", "steps<=20"]), [&*run, &*second]);
    assert!(found(&["--where", "optimizer.lr>0.1"]).is_empty());
    for (asked, words) in [
        (["--data", "other.csv"], "no run has data `other.csv`"),
        (["--where", "optimizer.rl>0.1"], "no run's job has a key `optimizer.rl`"),
        (["--commit", "v2"], "no run is of a commit, branch or tag `v2`"),
    ] {
        let refused = cluster.coord(&[&["runs"][..], &asked].concat());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(4) && said.contains(words), "{said}");
    }

    // The same commit with other uncommitted changes.
    fs::write(again.join("jobs/more.py"), "1\n").unwrap();
    let third = cluster.submit(rebuilt.to_str().unwrap(), &[&["--allow-dirty"], &short[..]].concat());
    cluster.finished(&third);
    let differences = cluster.ask(&["diff", &second, &third])["differences"].clone();
    let keys: Vec<&str> = differences.as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["uncommitted changes"], "{differences:#}");

    let (step, checkpoint) = cluster.checkpoints(&second)[0].clone();
    let resumed = cluster.resume(&checkpoint);
    cluster.finished(&resumed);
    let tree = cluster.ask(&["lineage", &resumed]);
    let fork = &tree["checkpoints"][0];
    assert_eq!((&tree["run"], &fork["step"]), (&second.as_str().into(), &step.into()));
    assert_eq!((&fork["runs"][0]["run"], &fork["runs"][0]["asked"]), (&resumed.as_str().into(), &true.into()));
}
