//! Six ranks give the same bits on one to six processes: with several element types, batch norm, dropout, clipping, several ranks in one
//! process, unused and tied parameters, and embeddings.

use crate::lab::{Lab, Outcome, idx, module, table};

/// Momentum, a schedule, and a norm to which every step is clipped.
const SCRIPT: &str = r#"
    name = "script"
    seed = 3
    steps = 4
    ranks = 6
    batch = { size = 18 }
    optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9, clip_norm = 0.05 }
    schedule = { kind = "cosine", warmup_steps = 2 }
    model = { kind = "torchscript", path = "net.pt" }
    data = { kind = "csv", path = "table.csv", target = "class" }
    checkpoint = { every_steps = 2 }
    report = { fingerprints_every = 1 }
"#;

/// The module of `modules.py` in the element type `dtype`.
fn script(dtype: &str, sets: &[&str]) -> Lab {
    Lab::new(SCRIPT, sets, &[("net.pt", module("modules", dtype)), ("table.csv", table().into_bytes())])
}

/// Runs the job on one process and on each number of processes in `others`; record, states, generators and tensors must be equal.
fn assert_equal_on(lab: &Lab, others: &[u32]) -> Outcome {
    let one = lab.run(1, None);
    assert_eq!(one.codes, [0], "{}", one.stderr);
    for &processes in others {
        let many = lab.run(processes, None);
        assert_eq!(many.codes, vec![0; processes as usize], "{}", many.stderr);
        assert_eq!(one.record(), many.record(), "record on {processes} processes");
        assert_eq!(one.state(), many.state(), "final state on {processes} processes");
        for (a, b) in one.manifests.iter().zip(&many.manifests) {
            assert_eq!((&a.tensors, &a.ranks), (&b.tensors, &b.ranks), "step {} on {processes} processes", a.step);
            assert_eq!(a.record, b.record, "fingerprints up to step {} on {processes} processes", a.step);
        }
    }
    one
}

/// Tests a script. `stored`: element type in checkpoints. `sum`: element type in which gradients are added. `native`: a number of
/// processes at which `numerics.reduction = "native"` gives other bits.
fn assert_script(dtype: &str, stored: &str, sum: &str, others: &[u32], native: u32, sets: &[&str]) {
    let lab = script(dtype, sets);
    let one = assert_equal_on(&lab, others);
    let (first, last) = (one.manifest_at(2), one.manifest_at(4));
    let layout = &last.numerics["layout"];
    assert!(layout.starts_with(&format!("flat {sum}, ")), "{layout}");
    let names: Vec<&str> = last.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let tensor = |name: &str| {
        let of = |manifest: &lockstep_common::manifest::Manifest| {
            manifest.tensors.iter().find(|tensor| tensor.name == name).cloned().expect("a tensor of that name")
        };
        (of(first), of(last))
    };
    for name in ["encoder.weight", "table.weight", "norm.weight", "inner.bias", "head.weight"] {
        let (before, after) = tensor(&format!("model/{name}"));
        assert_eq!(after.dtype, stored, "{name}");
        assert_ne!(before.pieces, after.pieces, "{name} is trained");
    }
    let (before, after) = tensor("model/unused.weight");
    assert_eq!(before.pieces, after.pieces, "what no loss depends on stays");
    assert!(!names.contains(&"model/decoder.weight"), "one weight under two names is one parameter: {names:?}");
    let (before, after) = tensor("buffer/norm.running_mean");
    assert_ne!(before.pieces, after.pieces, "statistics move");

    let resumed = lab.run(1, Some(first));
    assert_eq!(resumed.record(), one.record()[2..], "resumed");
    assert_eq!(resumed.state(), one.state());

    // With these gradients another order of additions gives other bits.
    let sets: Vec<&str> = sets.iter().copied().chain(["numerics.reduction=native"]).collect();
    let other = lab.with(SCRIPT, &sets).run(native, None);
    assert_ne!(other.record(), one.record(), "the test would not see a wrong order");
}

#[test]
fn parameters_of_32_bits() {
    assert_script("float32", "float", "Float", &[2, 3, 4, 5, 6], 2, &[]);
}

#[test]
fn parameters_of_64_bits() {
    assert_script("float64", "double", "Double", &[3, 6], 2, &["optimizer={kind=\"adamw\", lr=0.01, clip_norm=0.05}"]);
}

/// Gradients are added in 32 bits, and rounded once after the tree. With leaves of 16 bits few sums are inexact.
#[test]
fn parameters_of_16_bits() {
    assert_script(
        "bfloat16",
        "bfloat16",
        "Float",
        &[2, 4],
        5,
        &["optimizer={kind=\"adamw\", lr=0.01, clip_norm=0.05}"],
    );
}

fn gpt(sets: &[&str]) -> Lab {
    let job = r#"
        name = "gpt"
        steps = 4
        ranks = 6
        batch = { size = 12 }
        optimizer = { kind = "adamw", lr = 0.01, weight_decay = 0.1, clip_norm = 0.5 }
        model = { kind = "gpt", layers = 1, heads = 2, width = 16, context = 8, vocabulary = 32, dropout = 0.2 }
        data = { kind = "tokens", path = "tokens" }
        checkpoint = { every_steps = 2 }
        report = { fingerprints_every = 1 }
    "#;
    let tokens = (0..900_u64).map(|at| ((at * at * 7 + at / 3) % 32) as u8).collect();
    Lab::new(job, sets, &[("tokens", tokens)])
}

#[test]
fn a_transformer_with_tied_embeddings_and_dropout() {
    let one = assert_equal_on(&gpt(&[]), &[6]);
    assert!(one.manifest_at(4).tensors.iter().any(|tensor| tensor.name == "model/tokens.weight"));
}

/// Three buckets; the gradient of the tied embedding comes from both ends of the model. Only the last step has fingerprints; in a step with
/// fingerprints, gradients are reduced after the backward pass.
#[test]
fn a_transformer_whose_gradients_are_reduced_beside_its_backward_pass() {
    let last = ["steps=6", "checkpoint.every_steps=6", "report.fingerprints_every=6"];
    let lab = gpt(&[&["model.layers=2", "model.width=128"], &last[..]].concat());
    let one = lab.run(1, None);
    let lab = lab.by_messages();
    for processes in [2, 4] {
        let many = lab.run(processes, None);
        assert_eq!(many.codes, vec![0; processes as usize], "{}", many.stderr);
        assert_eq!((one.record(), one.state()), (many.record(), many.state()), "{processes} processes");
        assert_eq!(one.manifest_at(6).record, many.manifest_at(6).record, "fingerprints on {processes} processes");
    }
}

#[test]
fn a_convnet_with_batch_norm() {
    let job = r#"
        name = "resnet"
        steps = 4
        ranks = 6
        batch = { size = 12 }
        optimizer = { kind = "sgd", lr = 0.05, momentum = 0.9, weight_decay = 1e-3, clip_norm = 1.0 }
        model = { kind = "resnet", blocks = 1, width = 4, outputs = 4 }
        data = { kind = "idx", images = "images", labels = "labels" }
        checkpoint = { every_steps = 2 }
        report = { fingerprints_every = 1 }
    "#;
    let images = idx(&[36, 8, 8], |at| ((at * 2_654_435_761) >> 7) as u8);
    let labels = idx(&[36], |at| (at % 4) as u8);
    assert_equal_on(&Lab::new(job, &[], &[("images", images), ("labels", labels)]), &[5]);
}
