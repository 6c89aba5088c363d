//! When a checkpoint is committed, and when it is rejected.

use lockstep_common::manifest::Share;
use lockstep_core::ReportBody;
use lockstep_core::state::NotFound;

use crate::cluster::{Cluster, share, written};

type Spoil = fn(&mut Share);

#[test]
fn a_manifest_of_everything_is_committed_once_it_is_written_and_opened() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    cluster.say(&run, 1, written(&share(1, 2, 5)));
    assert!(cluster.run(&run).checkpoints.is_empty());
    assert!(cluster.state.written().is_empty(), "a share is missing");
    cluster.say(&run, 0, written(&share(0, 2, 5)));
    assert_eq!(cluster.state.written(), [(run.clone(), 1, 5)]);
    assert!(cluster.run(&run).checkpoints.is_empty(), "nobody has opened its blobs");
    cluster.open();
    assert!(cluster.state.written().is_empty());
    let made = cluster.run(&run).checkpoints[&5].clone();
    assert!(cluster.run(&run).shares.is_empty());

    let manifest = cluster.manifest(&made.id);
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
    cluster.say(&run, 0, written(&share(0, 2, 5)));
    cluster.say(&run, 1, ReportBody::ShareFailed { step: 5, reason: "no space left on device".into() });
    cluster.say(&run, 1, ReportBody::ShareFailed { step: 6, reason: "no space left on device".into() });
    cluster.say(&run, 0, written(&share(0, 2, 6)));
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
fn shares_that_do_not_fit_together_or_lie_are_no_checkpoint() {
    let cases: [(Spoil, &str); 12] = [
        (|share| share.epoch = 1, "process 0 is in epoch 0, process 1 in epoch 1"),
        (|share| share.tensors[0].name = "model/w0".into(), "tensor `model/w0` is in two shares"),
        (|share| share.ranks.truncate(1), "the shares contain 3 ranks, but the job has 4"),
        (|share| share.ranks[0].rank = 3, "`ranks` must be 0, 1, 2, .. without gaps"),
        (|share| share.tensors[0].shape = vec![], "tensor `model/w1` has 8 bytes, but float [] needs 4"),
        (|share| share.tensors[0].shape = vec![-2], "tensor `model/w1` has the impossible shape [-2]"),
        (
            |share| share.tensors[0].shape = vec![1 << 40, 1 << 40],
            "tensor `model/w1` has the impossible shape [1099511627776, 1099511627776]",
        ),
        (|share| share.tensors[0].dtype = "flaot".into(), "has the unknown element type `flaot`"),
        (
            |share| share.tensors[0].pieces = vec![share.tensors[0].pieces[0].clone(); 2],
            "tensor `model/w1` has 16 bytes, but float [2] needs 8",
        ),
        (
            |share| share.tensors[0].pieces.iter_mut().for_each(|piece| piece.bytes = u64::MAX),
            "tensor `model/w1` has more bytes than a file can have",
        ),
        (|_| (), ""),
        (
            |share| {
                share.tensors[0].dtype = "int64".into();
                share.tensors[0].shape = vec![1];
            },
            "",
        ),
    ];
    for (spoil, reason) in cases {
        let mut cluster = Cluster::with_two_nodes();
        let run = cluster.submit(&[]);
        cluster.all_ready(&run);
        cluster.say(&run, 0, written(&share(0, 2, 5)));
        let mut spoilt = share(1, 2, 5);
        spoil(&mut spoilt);
        cluster.say(&run, 1, written(&spoilt));
        cluster.open();
        let failed = &cluster.run(&run).state.failed_checkpoints;
        assert_eq!(failed.is_empty(), reason.is_empty(), "{failed:?}");
        assert_eq!(cluster.run(&run).checkpoints.len(), usize::from(reason.is_empty()));
        assert!(failed.iter().all(|failed| failed.reason.ends_with(reason)), "{failed:?}");
        assert_eq!(cluster.status(&run), "running");
    }
}

#[test]
fn shares_without_tensors_are_no_checkpoint() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    for process in 0..2 {
        let empty = Share { tensors: Vec::new(), ..share(process, 2, 5) };
        cluster.say(&run, process, written(&empty));
    }
    cluster.open();
    assert_eq!(
        cluster.run(&run).state.failed_checkpoints[0].reason,
        "the manifest contradicts itself: it has no tensors"
    );
}

#[test]
fn shares_are_compared_with_the_checkpoint_before() {
    let cases: [(Spoil, &str); 4] = [
        (|share| share.tensors.clear(), "no share has tensor `model/w1`, which is in the previous checkpoint `ID`"),
        (|share| share.tensors[0].name = "model/w2".into(), "tensor `model/w2` is not in the previous checkpoint `ID`"),
        (
            |share| share.tensors[0].shape = vec![1, 2],
            "tensor `model/w1` is float [1, 2], but float [2] in the previous checkpoint `ID`",
        ),
        (
            |share| share.tensors[0].dtype = "int".into(),
            "tensor `model/w1` is int [2], but float [2] in the previous checkpoint `ID`",
        ),
    ];
    for (spoil, reason) in cases {
        let mut cluster = Cluster::with_two_nodes();
        let run = cluster.submit(&[]);
        cluster.all_ready(&run);
        let before = cluster.checkpoint(&run, 5);
        let mut spoilt = share(1, 2, 7);
        spoil(&mut spoilt);
        cluster.say(&run, 0, written(&share(0, 2, 7)));
        cluster.say(&run, 1, written(&spoilt));
        cluster.open();
        assert_eq!(cluster.run(&run).state.failed_checkpoints[0].reason, reason.replace("ID", &before.short()));
        assert_eq!(cluster.run(&run).checkpoints.len(), 1);
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

    // A name that is a prefix of another run's id.
    let beginning = &run.as_str()[..6];
    let fourth = cluster.submit(&[&format!("name={beginning}")]);
    let said = cluster.state.find_run(beginning).unwrap_err().to_string();
    assert!(
        said.contains(" matches 2 runs: ") && said.contains(run.as_str()) && said.contains(fourth.as_str()),
        "{said}"
    );
    let fifth = cluster.submit(&[&format!("name={run}")]);
    assert_eq!(cluster.state.find_run(run.as_str()).unwrap().id(), &run, "a complete id has precedence over names");
    assert_eq!(cluster.state.find_run(fifth.as_str()).unwrap().id(), &fifth);
}
