//! Failures have clear reasons, and do not damage earlier checkpoints.

use crate::lab::{Lab, path_of_blob, table};
use lockstep_common::ending::EXIT_PEERS_GONE;

const JOB: &str = r#"
    name = "failing"
    steps = 8
    ranks = 2
    batch = { size = 8 }
    optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9 }
    model = { kind = "mlp", hidden = [8], outputs = 3 }
    data = { kind = "csv", path = "table.csv", target = "class" }
    checkpoint = { every_steps = 2 }
"#;

fn lab(sets: &[&str]) -> Lab {
    Lab::new(JOB, sets, &[("table.csv", table().into_bytes())])
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_step_and_the_checkpoints_before_it_are_whole() {
    let lab = lab(&["optimizer.lr=1e18", "checkpoint.every_steps=1"]);
    let outcome = lab.run(2, None);
    assert_eq!(outcome.codes, [1, 1], "{}", outcome.stderr);
    assert_eq!(outcome.failures.len(), 2, "both processes see the same");
    let failed = outcome.steps.len() as u64 + 1;
    assert!(failed > 1, "the first step is sound");
    for reason in &outcome.failures {
        assert!(reason.contains(&format!("of step {failed} is ")), "{reason}");
        assert!(reason.contains("its last checkpoint is kept"), "{reason}");
    }
    assert_eq!(outcome.manifests.last().unwrap().step, failed - 1);
    let outcome = lab.with(JOB, &["optimizer.lr=1e18", "checkpoint.every_steps=0"]).run(1, None);
    assert_eq!(outcome.steps.len() as u64, failed - 1, "the steps before it are recorded without a checkpoint too");
}

#[test]
fn a_flipped_bit_in_a_blob_is_found_before_anything_is_loaded() {
    let lab = lab(&[]);
    let whole = lab.run(1, None);
    let manifest = whole.manifest_at(4);
    let entry = manifest.tensors.iter().find(|tensor| tensor.name == "model/layers.0.weight").unwrap();
    let path = path_of_blob(&lab.store(), &entry.pieces[0].digest);
    let sound = std::fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    bytes[17] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let outcome = lab.run(1, Some(manifest));
    assert_eq!(outcome.codes, [1]);
    let reason = &outcome.failures[0];
    assert!(reason.contains(&entry.pieces[0].digest.to_hex()) && reason.contains("is corrupt"), "{reason}");

    std::fs::write(&path, &sound[1..]).unwrap();
    assert!(lab.run(1, Some(manifest)).failures[0].contains("is truncated"));
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(lab.run(1, Some(manifest)).state(), whole.state());
}

#[test]
fn what_is_derived_must_be_what_was_stored() {
    let lab = lab(&[]);
    let whole = lab.run(1, None);
    let refused = |change: &dyn Fn(&mut lockstep_common::manifest::Manifest)| {
        let mut manifest = whole.manifest_at(4).clone();
        change(&mut manifest);
        let outcome = lab.run(1, Some(&manifest));
        assert_eq!(outcome.codes, [1]);
        outcome.failures[0].clone()
    };
    let own = whole.manifest_at(4).ranks[1].clone();
    let reason = refused(&|manifest| *manifest.ranks[1].seeds.get_mut("forward").unwrap() ^= 1);
    let seed = own.seeds["forward"];
    assert!(reason.contains("rank 1: the seed `forward`"), "{reason}");
    assert!(reason.contains(&format!("`{}`", seed ^ 1)) && reason.contains(&format!("`{seed}`")), "{reason}");
    let reason = refused(&|manifest| manifest.ranks[0].next_position += 1);
    assert!(reason.contains("rank 0: the next sample position"), "{reason}");
    let reason = refused(&|manifest| {
        let other = manifest.ranks[0].generators["cpu"].clone();
        manifest.ranks[1].generators.insert("cpu".into(), other);
    });
    assert!(reason.contains("rank 1: the state of generator `cpu`"), "{reason}");
}

#[test]
fn changed_data_is_refused_with_both_digests() {
    let lab = lab(&[]);
    let mut changed = table();
    changed.push_str("0,0,0,0,0,0,1\n");
    std::fs::write(lab.dir.path().join("table.csv"), changed).unwrap();
    let outcome = lab.run(1, None);
    assert_eq!(outcome.codes, [1]);
    let reason = &outcome.failures[0];
    assert!(reason.contains("has changed since the run was submitted"), "{reason}");
    assert!(reason.contains(&lab.data[0].digest.to_hex()), "{reason}");
}

#[test]
fn a_store_that_takes_nothing_costs_the_checkpoint_and_not_the_run() {
    let lab = lab(&[]);
    let reference = lab.run(1, None);
    let broken = lab.store();
    let outcome = lab.run_and(1, None, |_| {
        // As on a full disk, no new file can be created.
        std::fs::remove_dir_all(&broken).unwrap();
        std::fs::write(&broken, b"").unwrap();
    });
    assert_eq!(outcome.codes, [0], "{}", outcome.stderr);
    assert_eq!(outcome.state(), reference.state());
    let steps: Vec<u64> = outcome.checkpoint_failures.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [2, 4, 6, 8]);
    assert!(outcome.checkpoint_failures[0].1.contains("cannot "), "{:?}", outcome.checkpoint_failures);
    assert!(outcome.manifests.is_empty());
}

#[test]
fn a_killed_process_ends_the_others_at_once_with_their_own_exit_code() {
    let lab = lab(&["steps=100000000", "ranks=3", "batch.size=6", "checkpoint.every_steps=0"]);
    let outcome = lab.run_and(3, None, |processes| {
        processes.wait_for_step(1);
        processes.kill(1);
    });
    assert_eq!(outcome.codes, [EXIT_PEERS_GONE, 137, EXIT_PEERS_GONE], "{}", outcome.stderr);
    assert!(outcome.stderr.contains("lost connection to process 1"), "{}", outcome.stderr);
    assert!(outcome.failures.is_empty(), "the run goes on in its next generation");
}

#[test]
fn a_process_ends_with_its_agent() {
    let lab = lab(&["steps=100000000", "ranks=1", "checkpoint.every_steps=0"]);
    let outcome = lab.run_and(1, None, |processes| {
        processes.wait_for_step(1);
        processes.hang_up(0);
    });
    assert_eq!(outcome.codes, [137], "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the agent"), "{}", outcome.stderr);
}
