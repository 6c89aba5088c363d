//! Reproducibility: a second run, runs on any number of processes, and runs that resume from any checkpoint give the same bits.

use crate::lab::{Lab, Outcome, idx, table};

/// Everything that could go wrong: dropout, shuffling, momentum, a schedule, clipping, five steps per epoch.
const JOB: &str = r#"
    name = "exact"
    seed = 7
    steps = 12
    ranks = 4
    batch = { size = 8 }
    optimizer = { kind = "sgd", lr = 0.2, momentum = 0.9, weight_decay = 0.01, clip_norm = 1.0 }
    schedule = { kind = "cosine", warmup_steps = 3 }
    model = { kind = "mlp", hidden = [16, 16], outputs = 3, dropout = 0.3 }
    data = { kind = "csv", path = "table.csv", target = "class", validation = 0.2 }
    checkpoint = { every_steps = 1 }
"#;

fn lab(sets: &[&str]) -> Lab {
    Lab::new(JOB, sets, &[("table.csv", table().into_bytes())])
}

fn assert_equal(a: &Outcome, b: &Outcome, what: &str) {
    assert_eq!(a.record(), b.record(), "record: {what}");
    assert_eq!(a.state(), b.state(), "final state: {what}");
}

#[test]
fn the_same_job_gives_the_same_bits_again_and_another_seed_others() {
    let lab = lab(&[]);
    let (first, second) = (lab.run(1, None), lab.run(1, None));
    assert_eq!(first.record().len(), 12);
    assert_eq!(first.codes, [0]);
    assert_equal(&first, &second, "again");
    let other = lab.with(JOB, &["seed=8"]).run(1, None);
    assert_ne!(other.state(), first.state());
}

#[test]
fn the_bytes_of_samples_are_recorded_whatever_the_ranks() {
    let lab = lab(&[]);
    let bytes = |outcome: &Outcome| outcome.steps.iter().map(|step| step.contents).collect::<Vec<_>>();
    let four = bytes(&lab.run(2, None));
    assert_eq!(four.len(), 12);
    assert!((1..12).all(|step| four[step] != four[step - 1]), "each step reads other samples: {four:x?}");
    let lab = lab.with(JOB, &["ranks=2"]);
    assert_eq!(bytes(&lab.run(2, None)), four, "as many ranks as share the batch");
    let other = Lab::new(JOB, &["ranks=2"], &[("table.csv", table().replace("-0.", "-0.1").into_bytes())]);
    assert!(bytes(&other.run(1, None)).iter().zip(&four).all(|(a, b)| a != b), "other numbers");
}

#[test]
fn four_ranks_give_the_same_bits_on_one_two_three_and_four_processes() {
    let lab = lab(&[]);
    let one = lab.run(1, None);
    for processes in [2, 3, 4] {
        let many = lab.run(processes, None);
        assert_eq!(many.codes, vec![0; processes as usize], "{}", many.stderr);
        assert_equal(&one, &many, &format!("{processes} processes"));
        for (a, b) in one.manifests.iter().zip(&many.manifests) {
            assert_eq!((a.state, &a.ranks, &a.record), (b.state, &b.ranks, &b.record), "checkpoint at {}", a.step);
        }
    }
}

#[test]
fn three_and_six_ranks_give_the_same_bits_on_other_numbers_of_processes() {
    let lab = lab(&["ranks=3", "batch.size=6"]);
    assert_equal(&lab.run(1, None), &lab.run(2, None), "3 ranks on 2 processes");
    assert_equal(&lab.run(1, None), &lab.run(3, None), "3 ranks on 3 processes");
    let lab = lab.with(JOB, &["ranks=6", "batch.size=12", "optimizer={kind=\"adamw\", lr=0.01, weight_decay=0.1}"]);
    let one = lab.run(1, None);
    assert_equal(&one, &lab.run(2, None), "6 ranks on 2 processes");
    assert_equal(&one, &lab.run(4, None), "6 ranks on 4 processes");
}

/// Enough parameters for a reduction through shared memory; clipping changes the mean in place at every step.
#[test]
fn a_large_clipped_model_has_the_same_bits_on_any_number_of_processes() {
    let lab = lab(&[
        "ranks=6",
        "batch.size=12",
        "model.hidden=[256, 256]",
        "optimizer.clip_norm=0.01",
        "checkpoint.every_steps=30",
        "steps=60",
    ]);
    let one = lab.run(1, None);
    assert!(one.record().iter().all(|step| f64::from_bits(step[2]) > 0.01), "clipped at every step");
    for processes in [2, 3, 5] {
        assert_equal(&one, &lab.run(processes, None), &format!("{processes} processes"));
    }
}

/// Three buckets, which are exchanged during the backward pass, except in steps with fingerprints.
#[test]
fn a_model_of_many_buckets_has_the_same_bits_where_processes_share_no_memory() {
    let lab = lab(&[
        "ranks=6",
        "batch.size=12",
        "model.hidden=[512, 512, 512]",
        "optimizer.clip_norm=0.01",
        "checkpoint.every_steps=10",
        "report.fingerprints_every=7",
        "steps=20",
    ]);
    let one = lab.run(1, None);
    let lab = lab.by_messages();
    for processes in [2, 3, 5, 6] {
        let many = lab.run(processes, None);
        assert_equal(&one, &many, &format!("{processes} processes"));
        assert_eq!(one.manifest_at(20).record, many.manifest_at(20).record, "fingerprints on {processes} processes");
    }
    assert_eq!(lab.run(2, Some(one.manifest_at(10))).state(), one.state(), "resumed");
}

#[test]
fn a_run_resumed_from_any_of_its_checkpoints_ends_with_the_same_bits() {
    let lab = lab(&[]);
    let whole = lab.run(2, None);
    assert_eq!(whole.manifests.len(), 12, "{:?}", whole.checkpoint_failures);
    assert_eq!(whole.manifest_at(12).state, whole.state(), "the last checkpoint is the final state");
    for step in 1..12_u64 {
        // Steps 5 and 10 are the ends of epochs.
        let manifest = whole.manifest_at(step);
        let resumed = lab.run(1 + (step % 2) as u32, Some(manifest));
        assert_eq!(resumed.record(), whole.record()[step as usize..], "resumed from step {step}");
        assert_eq!(resumed.state(), whole.state(), "resumed from step {step}");
        assert_eq!(resumed.manifest_at(12).record, whole.manifest_at(12).record, "the record's chain goes on");
        assert_eq!(manifest.ranks.len(), 4);
        assert!(manifest.ranks.iter().all(|rank| rank.consumed == step * 2 && rank.epoch == step / 5));
    }
}

#[test]
fn adamw_resumes_with_the_same_bits() {
    let lab = lab(&["optimizer={kind=\"adamw\", lr=0.01, weight_decay=0.1}", "checkpoint.every_steps=5"]);
    let whole = lab.run(1, None);
    let resumed = lab.run(2, Some(whole.manifest_at(5)));
    assert_eq!(resumed.record(), whole.record()[5..]);
    assert_eq!(resumed.state(), whole.state());
}

#[test]
fn evaluation_reports_and_checkpoint_intervals_change_nothing_and_are_equal_on_any_number_of_processes() {
    let plain = lab(&["checkpoint.every_steps=0", "report.layer_norms_every=0"]);
    let reference = plain.run(1, None);
    assert!(reference.evals.is_empty() && reference.layers.is_empty());
    assert_eq!(reference.manifests.len(), 1, "the last step always has a checkpoint");
    let busy = plain.with(JOB, &["eval.every_steps=5", "checkpoint.every_steps=3", "report.layer_norms_every=4"]);
    let (one, three) = (busy.run(1, None), busy.run(3, None));
    assert_equal(&reference, &one, "with evaluation");
    assert_equal(&reference, &three, "with evaluation, on 3 processes");
    let evals = |outcome: &Outcome| {
        let bits = |eval: &lockstep_rpc::EvalReport| (eval.step, eval.loss.to_bits(), eval.accuracy.map(f64::to_bits));
        outcome.evals.iter().map(bits).collect::<Vec<_>>()
    };
    assert_eq!(
        one.evals.iter().map(|eval| (eval.step, eval.samples)).collect::<Vec<_>>(),
        [(5, 10), (10, 10), (12, 10)]
    );
    assert_eq!(evals(&one), evals(&three));
    assert!(one.evals.iter().all(|eval| eval.accuracy.is_some() && eval.perplexity.is_none()));
    assert_eq!(one.layers.iter().map(|layer| layer.step).collect::<Vec<_>>(), [4, 8, 12]);
    for (layer, step) in one.layers.iter().zip([4, 8, 12]) {
        assert_eq!((layer.names.len(), layer.grad_norms.len()), (6, 6));
        let total = layer.grad_norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        let whole = f64::from_bits(one.steps[step - 1].grad_norm);
        assert!((total - whole).abs() <= 1e-9 * whole, "layers' norms make the global one: {total} {whole}");
    }
}

#[test]
fn batch_norm_follows_rank_0_whichever_process_hosts_whom() {
    let job = r#"
        name = "bn"
        steps = 4
        ranks = 4
        batch = { size = 8 }
        optimizer = { kind = "sgd", lr = 0.05, momentum = 0.9 }
        model = { kind = "resnet", blocks = 1, width = 4, outputs = 4 }
        data = { kind = "idx", images = "images", labels = "labels" }
        checkpoint = { every_steps = 2 }
    "#;
    let images = idx(&[32, 8, 8], |at| ((at * 2_654_435_761) >> 7) as u8);
    let labels = idx(&[32], |at| (at % 4) as u8);
    let lab = Lab::new(job, &[], &[("images", images), ("labels", labels)]);
    let one = lab.run(1, None);
    for processes in [2, 4] {
        assert_equal(&one, &lab.run(processes, None), &format!("{processes} processes"));
    }
    let statistics = |step| {
        let tensors = one.manifest_at(step).tensors.iter().filter(|tensor| tensor.name.starts_with("buffer/"));
        tensors.map(|tensor| (tensor.name.clone(), tensor.pieces.clone())).collect::<Vec<_>>()
    };
    assert!(!statistics(2).is_empty() && statistics(2) != statistics(4), "statistics are saved, and move");
    let resumed = lab.run(2, Some(one.manifest_at(2)));
    assert_eq!(resumed.record(), one.record()[2..]);
    assert_eq!(resumed.state(), one.state());
}

#[test]
fn native_reduction_repeats_at_a_fixed_number_of_processes() {
    let lab = lab(&["numerics.reduction=native"]);
    let first = lab.run(3, None);
    assert_equal(&first, &lab.run(3, None), "again on 3 processes");
}

#[test]
fn the_fingerprint_names_what_a_level_pins() {
    let fingerprint = |level: &str| {
        let lab = lab(&["steps=2", &format!("numerics.level={level}"), "numerics.threads=2"]);
        let mut numerics = std::collections::BTreeMap::new();
        lab.run_and(2, None, |processes| numerics = processes.numerics.clone()).state();
        numerics
    };
    let (exact, portable) = (fingerprint("exact"), fingerprint("portable"));
    assert!(["DEFAULT", "NO AVX"].contains(&portable["cpu.capability"].as_str()), "{}", portable["cpu.capability"]);
    assert_eq!((portable["env.MKL_CBWR"].as_str(), exact["env.MKL_CBWR"].as_str()), ("COMPATIBLE", "(not set)"));
    assert!(exact.contains_key("cpu.model"), "libraries choose by it");
    assert!(!portable.contains_key("cpu.model"), "at this level they do not");
    for map in [&exact, &portable] {
        assert_eq!(map["threads.intra_op"], "2");
        assert_eq!(map["deterministic.algorithms"], "error");
        assert_eq!(map["torchscript.executor"], "simple");
    }
    let off = fingerprint("off");
    assert_eq!(
        off.keys().collect::<Vec<_>>(),
        ["layout", "level", "reduction"],
        "nothing is promised, so little is asked"
    );
}
