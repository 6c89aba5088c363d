//! Rank processes do not outlive their agent.

use lockstep_tests::{Cluster, digits, wait_for};

#[test]
fn a_rank_process_ends_with_its_agent() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=2000000", "--set", "checkpoint.every_steps=0"]);
    cluster.reached(&run, 100);
    let pid = cluster.rank_pids(&run)[&0];
    cluster.kill_worker(0);
    // A zombie has ended, too.
    let runs = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    wait_for("the process to end", || (!runs()).then_some(()));
}
