//! When a checkpoint exists, and when it does not.

use lockstep_common::manifest::Manifest;
use lockstep_core::Said;
use lockstep_core::state::NotFound;

use super::cluster::{Cluster, share};

#[test]
fn the_last_share_commits_a_manifest_of_everything() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.say(&run, 1, Said::Share(share(1, 2, 5)));
    assert!(cluster.run(&run).checkpoints.is_empty());
    cluster.say(&run, 0, Said::Share(share(0, 2, 5)));
    let made = cluster.run(&run).checkpoints[&5];
    assert!(cluster.run(&run).shares.is_empty());

    let manifest = Manifest::decode(cluster.state.manifest(&made.id).unwrap()).unwrap();
    assert_eq!((manifest.step, manifest.run.clone(), manifest.state), (5, run, made.state));
    assert_eq!(manifest.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["model/w0", "model/w1"]);
    assert_eq!(manifest.ranks.iter().map(|r| r.rank).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((manifest.numerics["cpu"].as_str(), manifest.environment["libtorch"].as_str()), ("avx2", "2.13.0"));
    assert_eq!(manifest.record.steps, 5);
}

#[test]
fn a_failed_share_gives_that_checkpoint_up_and_no_other() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.say(&run, 0, Said::Share(share(0, 2, 5)));
    cluster.say(&run, 1, Said::ShareFailed { step: 5, reason: "no space left on device".into() });
    cluster.say(&run, 1, Said::ShareFailed { step: 6, reason: "no space left on device".into() });
    cluster.say(&run, 0, Said::Share(share(0, 2, 6)));
    let state = cluster.run(&run);
    assert!(state.shares.is_empty() && state.checkpoints.is_empty(), "{:?}", state.shares.keys());
    let failed = &state.state.failed_checkpoints;
    assert_eq!((failed.len(), failed[0].step, failed[1].step), (2, 5, 6));
    assert_eq!(failed[0].reason, "process 1 on `b`: no space left on device");
    assert_eq!(cluster.status(&run), "running");
    cluster.checkpoint(&run, 7);
    assert_eq!(cluster.run(&run).checkpoints.len(), 1);
}

#[test]
fn shares_that_do_not_fit_together_are_no_checkpoint() {
    type Spoil = fn(&mut lockstep_common::manifest::Share);
    let cases: [(Spoil, &str); 5] = [
        (|share| share.epoch = 1, "process 0 is in epoch 0, process 1 in epoch 1"),
        (|share| share.tensors[0].name = "model/w0".into(), "tensor `model/w0` is in two shares"),
        (|share| share.ranks.truncate(1), "the shares hold 3 ranks, the job has 4"),
        (|share| share.ranks[0].rank = 3, "`ranks` are not complete and in order"),
        (|share| share.tensors[0].shape = vec![], ""),
    ];
    for (spoil, reason) in cases {
        let mut cluster = Cluster::with_two_nodes();
        let run = cluster.submit(&[]);
        cluster.all_ready(&run);
        cluster.say(&run, 0, Said::Share(share(0, 2, 5)));
        let mut spoilt = share(1, 2, 5);
        spoil(&mut spoilt);
        cluster.say(&run, 1, Said::Share(spoilt));
        let failed = &cluster.run(&run).state.failed_checkpoints;
        assert_eq!(failed.is_empty(), reason.is_empty(), "{failed:?}");
        assert_eq!(cluster.run(&run).checkpoints.len(), usize::from(reason.is_empty()));
        assert!(failed.iter().all(|failed| failed.reason.ends_with(reason)), "{failed:?}");
        assert_eq!(cluster.status(&run), "running");
    }
}

#[test]
fn runs_and_checkpoints_are_found_by_unique_prefix() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&["name=first"]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    let second = cluster.submit(&["name=second"]);
    for typed in [run.as_str(), "first"] {
        assert_eq!(cluster.state.find_run(typed).unwrap().id(), &run, "{typed}");
    }
    let common = run.as_str().chars().zip(second.as_str().chars()).take_while(|(a, b)| a == b).count();
    assert_eq!(cluster.state.find_run(&second.as_str()[..=common]).unwrap().id(), &second);
    assert!(matches!(cluster.state.find_run(""), Err(NotFound::Nothing { .. })));
    assert_eq!(cluster.state.find_run("nope").unwrap_err().to_string(), "there is no run `nope`");

    assert_eq!(cluster.state.find_checkpoint(&checkpoint.short()), Ok(checkpoint));
    assert_eq!(cluster.state.find_checkpoint("xyz").unwrap_err().to_string(), "there is no checkpoint `xyz`");
    let third = cluster.submit(&["name=second"]);
    let NotFound::NotUnique { count, candidates, .. } = cluster.state.find_run("second").unwrap_err() else {
        panic!("two runs are called so");
    };
    assert_eq!(count, 2);
    assert_eq!(candidates, format!("`{second}` (second, starting), `{third}` (second, queued)"));
}
