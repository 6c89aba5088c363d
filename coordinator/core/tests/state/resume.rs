//! New runs from checkpoints.

use lockstep_common::Domain;
use lockstep_common::manifest::{CodeVersion, DataFile, Override, Piece};
use lockstep_core::command::Submit;
use lockstep_core::view::RunRow;
use lockstep_core::{Command, Effect, Outcome, Refusal};

use super::cluster::{Cluster, block, ready};

#[test]
fn a_resumed_run_begins_at_the_checkpoint_with_the_same_job() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&["seed=7"]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    let resumed = cluster.resume(checkpoint).unwrap();
    assert_ne!(resumed, run);
    assert_eq!(cluster.run(&resumed).submission.job, cluster.run(&run).submission.job);
    let row = RunRow::of(cluster.run(&resumed));
    assert_eq!((row.step, row.parent), (5, Some(checkpoint)));
    assert_eq!(cluster.desired("a")[0].restore.as_ref().map(|restore| restore.checkpoint), Some(checkpoint));

    cluster.all_ready(&resumed);
    cluster.say(&resumed, 0, block(6));
    cluster.exit(&resumed, 0, "");
    assert_eq!(cluster.effects.last(), Some(&Effect::Rewind { run: resumed.clone(), step: 5 }));
    cluster.all_ready(&resumed);
    let next = cluster.checkpoint(&resumed, 8);
    let manifest = cluster.manifest(&next);
    assert_eq!((manifest.parent, manifest.run), (Some(checkpoint), resumed));
}

#[test]
fn a_resume_on_other_numerics_is_refused_by_name() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    let resumed = cluster.resume(checkpoint).unwrap();
    cluster.say(&resumed, 0, ready(0, "neon"));
    let status = cluster.status(&resumed);
    assert!(
        status.starts_with("failed: the run would not continue with the same bits: `cpu` is `avx2` for"),
        "{status}"
    );
}

#[test]
fn what_is_accepted_goes_on_and_is_remembered_by_all_that_comes_of_it() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    let other = DataFile { path: "other".to_owned(), bytes: 3, digest: Domain::Blob.digest(b"new") };
    assert_eq!(cluster.resume_with(checkpoint, &[], &[other]), Err(Refusal::NoData("other".to_owned())));

    let resumed = cluster.resume_with(checkpoint, &["numerics.cpu"], &[]).unwrap();
    for process in [0, 1] {
        cluster.say(&resumed, process, ready(process, "neon"));
    }
    assert_eq!(cluster.status(&resumed), "running");
    let known = vec![Override { key: "numerics.cpu".into(), was: "avx2".into(), now: "neon".into() }];
    assert_eq!(cluster.run(&resumed).state.measured.overrides, known, "each once");
    let next = cluster.checkpoint(&resumed, 8);
    let manifest = cluster.manifest(&next);
    assert_eq!((&manifest.overrides, manifest.numerics["cpu"].as_str()), (&known, "neon"));
    assert_eq!(cluster.cancel(&resumed), Outcome::Done);

    let third = cluster.resume(next).unwrap();
    cluster.say(&third, 0, ready(0, "avx2"));
    assert!(cluster.status(&third).contains("--accept numerics.cpu`"), "{}", cluster.status(&third));
    assert_eq!(RunRow::of(cluster.run(&third)).overrides, known);
}

#[test]
fn what_was_accepted_at_the_beginning_does_not_change_again_with_a_new_generation() {
    let mut cluster = Cluster::with_two_nodes();
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    assert_eq!(cluster.cancel(&run), Outcome::Done);
    let resumed = cluster.resume_with(checkpoint, &["numerics.cpu"], &[]).unwrap();
    let ready_on = |cluster: &mut Cluster, cpu: &str| {
        for process in [0, 1] {
            cluster.say(&resumed, process, ready(process, cpu));
        }
    };
    // Before its first own checkpoint, each generation starts from the other run's checkpoint.
    for cpu in ["neon", "sve"] {
        ready_on(&mut cluster, cpu);
        assert_eq!(cluster.status(&resumed), "running");
        cluster.exit(&resumed, 0, "");
    }
    ready_on(&mut cluster, "neon");
    let own = cluster.checkpoint(&resumed, 8);
    cluster.exit(&resumed, 0, "");
    ready_on(&mut cluster, "sve");
    let said = cluster.status(&resumed);
    let words =
        format!("the run would not continue with the same bits: `cpu` is `neon` for checkpoint `{}`", own.short());
    assert!(said.contains(&words), "{said}");
}

#[test]
fn a_program_is_built_from_the_checkpoints_code_or_from_what_was_accepted() {
    let mut cluster = Cluster::with_two_nodes();
    let code = |commit: &str, tree: Option<&[u8]>| CodeVersion {
        commit: commit.to_owned(),
        branch: None,
        remote: None,
        dirty: false,
        tags: Vec::new(),
        directory: "jobs".to_owned(),
        tree: tree.map(|bytes| Piece { digest: Domain::Blob.digest(bytes), bytes: bytes.len() as u64 }),
        source: None,
    };
    let mut submit = |code| {
        let mut command = cluster.submit_command(&["model={ kind = \"program\" }", "program.bin=trainer"]);
        if let Command::Submit(Submit { code: place, .. }) = &mut command {
            *place = code;
        }
        cluster.apply(&command)
    };
    for none in [None, Some(code("c1", None))] {
        assert!(matches!(submit(none), Outcome::Refused(Refusal::Job(words)) if words.contains("work tree")));
    }
    let Outcome::Run(run) = submit(Some(code("c1", Some(b"1")))) else { panic!("it is refused") };
    assert_eq!(cluster.desired("a")[0].code, Some(code("c1", Some(b"1"))));
    cluster.all_ready(&run);
    let checkpoint = cluster.checkpoint(&run, 5);
    assert_eq!(cluster.cancel(&run), Outcome::Done);

    let other = Some(code("c2", Some(b"2")));
    let refused = cluster.resume_as(checkpoint, &["numerics"], &[], other.clone()).unwrap_err();
    assert!(refused.to_string().contains("was not accepted"), "{refused}");
    let refused = cluster.resume_as(checkpoint, &["code"], &[], Some(code("c2", None))).unwrap_err();
    assert!(refused.to_string().contains("no work tree"), "{refused}");
    let resumed = cluster.resume_as(checkpoint, &["code"], &[], other.clone()).unwrap();
    assert_eq!(cluster.desired("a")[0].code, other);
    let text = |commit: &str, bytes: &[u8]| {
        format!("commit {commit}, tree {}, directory `jobs`", Domain::Blob.digest(bytes).to_hex())
    };
    let known = vec![Override { key: "code".into(), was: text("c1", b"1"), now: text("c2", b"2") }];
    assert_eq!(cluster.run(&resumed).state.measured.overrides, known);
    cluster.all_ready(&resumed);
    let next = cluster.checkpoint(&resumed, 8);
    let manifest = cluster.manifest(&next);
    assert_eq!((manifest.code, manifest.overrides), (other, known));
    assert_eq!(cluster.cancel(&resumed), Outcome::Done);
    let same = cluster.resume_as(checkpoint, &["code"], &[], Some(code("c1", Some(b"1")))).unwrap();
    assert!(cluster.run(&same).state.measured.overrides.is_empty(), "nothing differs");
}

#[test]
fn there_must_be_a_checkpoint_and_something_left_to_train() {
    let mut cluster = Cluster::with_two_nodes();
    let unknown = Domain::Manifest.digest(b"");
    let run = cluster.submit(&[]);
    cluster.all_ready(&run);
    let last = cluster.checkpoint(&run, 10);
    let made_of = cluster.manifest(&last).into();
    assert_eq!(cluster.resume_of(unknown, made_of), Err(Refusal::NoCheckpoint(unknown.to_string())));
    assert_eq!(cluster.resume(last), Err(Refusal::NothingLeft { checkpoint: last.short(), step: 10 }));
}
