//! The queue: reasons, and the order of placement.

use lockstep_core::Outcome;

use super::cluster::Cluster;

#[test]
fn a_run_waits_for_devices_with_a_reason_and_starts_when_they_come() {
    let mut cluster = Cluster::default();
    let run = cluster.submit(&["world={processes=4, min_processes=4}"]);
    assert_eq!(cluster.status(&run), "queued: needs 4 devices, 0 are free and the nodes have 0 in all");
    cluster.join("a", "1", &["cpu", "cpu"]);
    assert_eq!(cluster.status(&run), "queued: needs 4 devices, 2 are free and the nodes have 2 in all");
    cluster.join("b", "1", &["cpu", "cpu"]);
    assert_eq!(cluster.status(&run), "starting");
}

#[test]
fn a_run_uses_what_is_there_between_its_bounds() {
    let mut cluster = Cluster::default();
    cluster.join("a", "1", &["cpu", "cpu", "cpu"]);
    let run = cluster.submit(&["world={processes=4, min_processes=2}"]);
    assert_eq!(cluster.desired("a").len(), 3);
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    cluster.submit(&["world={processes=2}"]);
    assert_eq!(cluster.desired("a").len(), 2);
}

#[test]
fn the_queue_is_first_in_first_out_but_nobody_waits_behind_what_cannot_fit() {
    let mut cluster = Cluster::with_two_nodes();
    let first = cluster.submit(&["world={processes=2, min_processes=2}"]);
    let big = cluster.submit(&["world={processes=4, min_processes=4}"]);
    let small = cluster.submit(&["world={processes=1}"]);
    assert_eq!(cluster.status(&big), "queued: needs 4 devices, 2 are free");
    assert_eq!(cluster.status(&small), format!("queued: waits for run `{big}`, which is before it in the queue"));
    cluster.lose("b", "1");
    assert_eq!(cluster.status(&small), "queued: needs 1 device, 0 are free", "`first` has both devices of `a`");
    assert_eq!(cluster.cancel(&first), Outcome::Done);
    assert_eq!(cluster.status(&small), "starting", "`big` could not run even if all else ended");
    cluster.join("b", "1", &["cpu", "cpu"]);
    assert_eq!(cluster.status(&big), "queued: needs 4 devices, 3 are free");
    assert_eq!(cluster.cancel(&small), Outcome::Done);
    assert_eq!(cluster.status(&big), "starting");
}

#[test]
fn a_run_stays_on_the_kind_of_device_that_it_began_on() {
    let mut cluster = Cluster::default();
    cluster.join("a", "1", &["cuda:0", "cuda:1"]);
    cluster.join("b", "1", &["cpu", "cpu"]);
    let run = cluster.submit(&[]);
    assert_eq!(cluster.desired("a").iter().map(|p| p.device.as_str()).collect::<Vec<_>>(), ["cuda:0", "cuda:1"]);
    cluster.lose("a", "1");
    assert_eq!(cluster.status(&run), "queued: needs 2 cuda devices, 0 are free and the nodes have 0 in all");
}
