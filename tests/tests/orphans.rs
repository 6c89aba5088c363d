//! Nothing trains on that nobody knows of.

use std::path::Path;

use lockstep_tests::{Cluster, digits, wait_for};

#[test]
fn a_rank_process_ends_with_its_agent_also_when_nobody_reads_its_output_any_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=2000000", "--set", "checkpoint.every_steps=0"]);
    cluster.reached(&run, 100);
    let pid = cluster.rank_pids(&run)[&0];
    // It reads the process's output from a pipe, which breaks now.
    cluster.kill_worker(0);
    wait_for("the process to end", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}
