//! Reproducibility on a GPU: a second run, a resumed run, and runs on any number of processes (through NCCL) give the same bits.
//!
//! The tests need a CUDA device, so they are ignored; `make gpu` runs them. One device is enough, because processes share it.

use crate::lab::{Lab, Outcome, idx, table};
use lockstep_common::ending::EXIT_PEERS_GONE;

/// Everything that could go wrong: dropout, shuffling, momentum, a schedule, clipping, fingerprints at every third step.
const MLP: &str = r#"
    name = "mlp"
    seed = 7
    steps = 12
    ranks = 6
    batch = { size = 12 }
    optimizer = { kind = "sgd", lr = 0.2, momentum = 0.9, weight_decay = 0.01, clip_norm = 1.0 }
    schedule = { kind = "cosine", warmup_steps = 3 }
    model = { kind = "mlp", hidden = [64, 64], outputs = 3, dropout = 0.3 }
    data = { kind = "csv", path = "table.csv", target = "class", validation = 0.2 }
    checkpoint = { every_steps = 3 }
    report = { fingerprints_every = 3 }
"#;

/// Batch norm, and convolutions, whose algorithms cuDNN chooses.
const RESNET: &str = r#"
    name = "resnet"
    steps = 6
    ranks = 4
    batch = { size = 32 }
    optimizer = { kind = "adamw", lr = 0.01 }
    model = { kind = "resnet", blocks = 1, width = 16, outputs = 4 }
    data = { kind = "idx", images = "images", labels = "labels" }
    checkpoint = { every_steps = 3 }
    report = { fingerprints_every = 2 }
"#;

/// Attention with dropout, and a tied embedding with a scattered gradient.
const GPT: &str = r#"
    name = "gpt"
    steps = 6
    ranks = 4
    batch = { size = 32 }
    optimizer = { kind = "adamw", lr = 0.004, weight_decay = 0.1, clip_norm = 1.0 }
    model = { kind = "gpt", layers = 2, heads = 4, width = 128, context = 64, vocabulary = 256, dropout = 0.1 }
    data = { kind = "tokens", path = "tokens", dtype = "u8", validation = 0.1 }
    checkpoint = { every_steps = 3 }
    report = { fingerprints_every = 2 }
    eval = { every_steps = 3, samples = 32 }
"#;

fn mlp(sets: &[&str]) -> Lab {
    Lab::new(MLP, sets, &[("table.csv", table().into_bytes())]).on_cuda()
}

fn resnet() -> Lab {
    let images = idx(&[128, 28, 28], |at| ((at * 2_654_435_761) >> 7) as u8);
    Lab::new(RESNET, &[], &[("images", images), ("labels", idx(&[128], |at| (at % 4) as u8))]).on_cuda()
}

fn gpt(sets: &[&str]) -> Lab {
    let tokens = (0..40_000_u64).map(|at| (at.wrapping_mul(at).wrapping_mul(0x9e37_79b9) >> 13) as u8 % 97).collect();
    Lab::new(GPT, sets, &[("tokens", tokens)]).on_cuda()
}

fn assert_equal(a: &Outcome, b: &Outcome, what: &str) {
    assert_eq!(a.record(), b.record(), "record: {what}\n{}\n{}", a.stderr, b.stderr);
    assert_eq!(a.state(), b.state(), "final state: {what}");
    for (a, b) in a.manifests.iter().zip(&b.manifests) {
        assert_eq!((a.state, &a.record), (b.state, &b.record), "checkpoint at {}: {what}", a.step);
        assert_eq!(a.ranks, b.ranks, "ranks at {}: {what}", a.step);
    }
}

/// Runs the job twice, and resumes it from each of its checkpoints; all runs must have the same bits.
fn assert_repeats(lab: &Lab) -> Outcome {
    let whole = lab.run(1, None);
    assert_eq!(whole.codes, [0], "{:?}\n{}", whole.failures, whole.stderr);
    assert_equal(&whole, &lab.run(1, None), "again");
    for manifest in &whole.manifests[..whole.manifests.len() - 1] {
        let resumed = lab.run(1, Some(manifest));
        assert_eq!(resumed.codes, [0], "{:?}\n{}", resumed.failures, resumed.stderr);
        assert_eq!(resumed.record(), whole.record()[manifest.step as usize..], "resumed from {}", manifest.step);
        assert_eq!(resumed.state(), whole.state(), "resumed from {}", manifest.step);
    }
    whole
}

fn assert_equal_on(lab: &Lab, processes: &[u32]) {
    let one = lab.run(1, None);
    assert_eq!(one.codes, [0], "{:?}\n{}", one.failures, one.stderr);
    for &processes in processes {
        let many = lab.run(processes, None);
        assert_eq!(many.codes, vec![0; processes as usize], "{:?}\n{}", many.failures, many.stderr);
        assert_equal(&one, &many, &format!("{processes} processes"));
        let resumed = lab.run(processes, Some(&one.manifests[0]));
        assert_eq!(resumed.state(), one.state(), "resumed on {processes} processes");
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn an_mlp_repeats_and_another_seed_gives_other_bits() {
    let lab = mlp(&[]);
    let whole = assert_repeats(&lab);
    assert!(whole.manifests[0].numerics["cuda.device"].contains("compute capability"));
    assert!(whole.manifests[0].ranks[0].generators.contains_key("cuda:0"), "{:?}", whole.manifests[0].ranks[0]);
    let used = whole.systems.iter().filter_map(|(_, system)| system.device.as_ref());
    assert!(used.clone().count() > 0 && used.clone().all(|device| device.allocated_bytes > 0), "{:?}", whole.systems);
    assert_ne!(mlp(&["seed=8"]).run(1, None).state(), whole.state());
}

#[test]
#[ignore = "needs a CUDA device"]
fn a_resnet_repeats() {
    assert_repeats(&resnet());
}

#[test]
#[ignore = "needs a CUDA device"]
fn a_gpt_repeats_in_full_and_in_lower_precision() {
    assert_repeats(&gpt(&[]));
    assert_repeats(&gpt(&["numerics.autocast=bf16"]));
    assert_repeats(&gpt(&["numerics.tf32=true"]));
}

#[test]
#[ignore = "needs a CUDA device"]
fn an_mlp_has_the_same_bits_on_any_number_of_processes() {
    assert_equal_on(&mlp(&[]), &[2, 3, 4]);
}

/// Several buckets, which are exchanged on their own stream during the backward pass.
#[test]
#[ignore = "needs a CUDA device"]
fn a_model_of_many_buckets_has_the_same_bits_on_any_number_of_processes() {
    assert_equal_on(&mlp(&["model.hidden=[3000, 3000, 3000]", "optimizer.clip_norm=0.01"]), &[2, 3]);
}

#[test]
#[ignore = "needs a CUDA device"]
fn a_resnet_and_a_gpt_have_the_same_bits_on_any_number_of_processes() {
    assert_equal_on(&resnet(), &[2, 4]);
    assert_equal_on(&gpt(&[]), &[2, 3]);
}

#[test]
#[ignore = "needs a CUDA device"]
fn native_reduction_repeats_at_a_fixed_number_of_processes() {
    let lab = mlp(&["numerics.reduction=native"]);
    assert_equal(&lab.run(2, None), &lab.run(2, None), "again on 2 processes");
}

#[test]
#[ignore = "needs a CUDA device"]
fn a_killed_process_ends_the_others_at_once() {
    let lab = mlp(&["steps=100000000", "checkpoint.every_steps=0"]);
    let begin = std::time::Instant::now();
    let outcome = lab.run_and(3, None, |processes| {
        processes.wait_for_step(1);
        processes.kill(1);
    });
    assert_eq!(outcome.codes, [EXIT_PEERS_GONE, 137, EXIT_PEERS_GONE], "{}", outcome.stderr);
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}

#[test]
#[ignore = "needs a CUDA device"]
fn a_flipped_bit_on_one_process_is_found() {
    let lab = mlp(&["steps=6"]).with_variable(1, "LOCKSTEP_FAULT", "mlp:1:4:model/layers.1.weight:5:20");
    let outcome = lab.run(2, None);
    let found: Vec<_> = outcome.corrupt.iter().map(|corrupt| (corrupt.step, corrupt.agreed)).collect();
    assert_eq!(found, [(6, 3), (6, 3)], "{:?}\n{}", outcome.failures, outcome.stderr);
    let tensors = &outcome.corrupt[0].tensors;
    assert!(tensors.iter().any(|tensor| tensor == "model/layers.1.weight"), "{tensors:?}");
    assert_ne!(outcome.corrupt[0].fingerprints[0], outcome.corrupt[0].fingerprints[1]);
}

/// With norms of layers at every step, loss and norm are read at once; without them, a step later.
#[test]
#[ignore = "needs a CUDA device"]
fn numbers_that_are_read_a_step_later_are_those_that_are_read_at_once() {
    let at_once = ["report.layer_norms_every=1"];
    assert_equal(&mlp(&[]).run(2, None), &mlp(&at_once).run(2, None), "an mlp");
    assert_equal(&gpt(&[]).run(1, None), &gpt(&at_once).run(1, None), "a gpt");
    let diverges = ["optimizer.lr=1e18", "report.fingerprints_every=0", "checkpoint.every_steps=0"];
    let (later, now) = (mlp(&diverges).run(2, None), mlp(&[&diverges[..], &at_once].concat()).run(2, None));
    assert_eq!(later.codes, [1, 1], "{}", later.stderr);
    assert_eq!((later.record(), &later.failures), (now.record(), &now.failures));
}
