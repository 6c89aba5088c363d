//! TorchScript modules with state, and with effects that training must detect. They give the same bits on any number of processes and
//! after a resume, or the run ends with an error that names the tensor.

use std::process::Command;

use tch::{Device, Kind, Tensor};

use crate::lab::{Lab, table};

const JOB: &str = r#"
    name = "stateful"
    seed = 3
    steps = 6
    ranks = 3
    batch = { size = 9 }
    optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9 }
    model = { kind = "torchscript", path = "net.pt" }
    data = { kind = "csv", path = "table.csv", target = "class", validation = 0.2 }
    checkpoint = { every_steps = 2 }
    report = { fingerprints_every = 1 }
"#;

fn lab(module: &str, sets: &[&str]) -> Lab {
    Lab::new(JOB, sets, &[("net.pt", crate::lab::module("stateful", module)), ("table.csv", table().into_bytes())])
}

#[test]
fn assigned_buffers_are_the_same_on_any_number_of_processes_resumed_and_evaluated() {
    let lab = lab("assigned", &[]);
    let one = lab.run(1, None);
    assert_eq!(one.codes, [0], "{}", one.stderr);
    assert_eq!(one.manifests[0].numerics["torchscript.gradients"], "autograd");
    for processes in [1, 2, 3] {
        let other = lab.run(processes, None);
        assert_eq!(other.record(), one.record(), "{processes} processes");
        assert_eq!(other.state(), one.state(), "{processes} processes");
        for (a, b) in one.manifests.iter().zip(&other.manifests) {
            assert_eq!((&a.tensors, &a.record), (&b.tensors, &b.record), "step {}, {processes} processes", a.step);
        }
    }
    let piece = |step: u64, name: &str| {
        let manifest = one.manifest_at(step);
        let tensor = manifest.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        tensor.pieces[0].digest
    };
    for name in ["buffer/ema", "buffer/calls", "buffer/table"] {
        assert_ne!(piece(2, name), piece(4, name), "{name} moves");
    }
    for step in [2, 4] {
        let resumed = lab.run(2, Some(one.manifest_at(step)));
        assert_eq!(resumed.record(), one.record()[step as usize..], "resumed at step {step}");
        assert_eq!(resumed.state(), one.state(), "resumed at step {step}");
    }
    let lab = lab.with(JOB, &["eval.every_steps=1"]);
    let evaluated = lab.run(2, None);
    assert_eq!((evaluated.evals.len(), evaluated.state()), (6, one.state()));
    // Its operators may begin with instructions whose results differ between vendors.
    let portable = lab.with(JOB, &["numerics.level=portable"]).fingerprints(1).remove(0);
    assert!(portable["cpu.approximations"].len() >= 64, "{portable:?}");
}

/// The next step changes the state while it is copied for a checkpoint: each update must wait for the copies of the tensors that it
/// changes.
#[test]
fn a_checkpoint_holds_the_state_of_its_step_although_the_copy_takes_longer_than_the_next_one() {
    let sets = |steps: &'static str| {
        let checkpoints = ["ranks=1", "checkpoint.every_steps=1", "report.fingerprints_every=0"];
        [&checkpoints[..], &["optimizer={kind=\"adamw\", lr=0.1, weight_decay=0.1}", steps]].concat()
    };
    let whole = lab("slanted", &sets("steps=4")).run(1, None);
    let steps: Vec<u64> = whole.manifests.iter().map(|manifest| manifest.step).collect();
    assert_eq!(steps, [1, 2, 3, 4], "{:?}", whole.checkpoint_failures);
    for (step, set) in [(1, "steps=1"), (2, "steps=2"), (3, "steps=3")] {
        // The digest of the final state is computed from the tensors themselves.
        let ended = lab("slanted", &sets(set)).run(1, None);
        assert_eq!(whole.manifest_at(step).state, ended.state(), "the state of step {step}");
    }
}

#[test]
fn a_parameter_that_the_forward_pass_changes_ends_the_run_at_that_step_by_its_name() {
    // Without fingerprints, because steps with fingerprints are checked more closely.
    let outcome = lab("shrinks", &["report.fingerprints_every=0", "checkpoint.every_steps=1"]).run(2, None);
    assert_eq!(outcome.codes, [1, 1], "{}", outcome.stderr);
    assert!(outcome.corrupt.is_empty(), "{:?}", outcome.corrupt);
    assert_eq!(outcome.failures.len(), 2);
    for reason in &outcome.failures {
        assert!(
            reason.starts_with("the model failed at step 3: the forward pass changed the parameter `inner.weight`"),
            "{reason}"
        );
    }
    assert_eq!(outcome.manifests.last().unwrap().step, 3, "the checkpoints before it are whole");
}

#[test]
fn a_buffer_that_changes_its_shape_ends_the_run_by_its_name() {
    let outcome = lab("widens", &[]).run(1, None);
    assert_eq!(outcome.codes, [1], "{}", outcome.stderr);
    let words = "the forward pass changed the buffer `ema` from Float of shape [3] to Float of shape [1, 3]";
    assert!(outcome.failures[0].contains(words), "{:?}", outcome.failures);
}

#[test]
fn features_are_measured_of_a_module_that_changes_its_inputs_and_lets_no_gradient_through() {
    let plain = lab("tests", &["eval.every_steps=2"]).run(2, None);
    let lab = lab("tests", &["eval={every_steps=2, feature_importance={every_steps=2, samples=10}}"]);
    for processes in [1, 2] {
        let measured = lab.run(processes, None);
        assert_eq!(measured.codes, vec![0; processes as usize], "{}", measured.stderr);
        assert_eq!(measured.state(), plain.state());
    }
}

/// Gradients of inputs, a running mean without gradients, and a running mean whose `.detach()` was forgotten.
#[test]
fn gradients_and_means_within_a_module_are_the_same_on_any_number_of_processes_and_resumed() {
    for module in ["penalised", "undetached"] {
        let lab = lab(module, &["report.fingerprints_every=0"]);
        let one = lab.run(1, None);
        assert_eq!(one.codes, [0], "{module}: {}", one.stderr);
        let two = lab.run(2, None);
        assert_eq!((two.record(), two.state()), (one.record(), one.state()), "{module}: {}", two.stderr);
        assert_eq!(lab.run(1, Some(one.manifest_at(2))).state(), one.state(), "{module}, resumed");
    }
}

#[test]
fn an_export_that_would_hold_other_weights_than_the_run_is_refused_by_the_tensors_name() {
    let lab = lab("packs", &[]);
    let outcome = lab.run(1, None);
    assert_eq!(outcome.codes, [1]);
    assert!(
        outcome.failures[0].contains("its module `scale` is saved and loaded by code of its own"),
        "{:?}",
        outcome.failures
    );

    // As with a checkpoint that an earlier version wrote.
    let path = |name: &str| lab.dir.path().join(name);
    let export = |value: f64| {
        let weight = Tensor::full([3], value, (Kind::Float, Device::Cpu));
        Tensor::write_safetensors(&[("scale.weight", weight)], path("weights")).unwrap();
        let mut rank = Command::new(env!("CARGO_BIN_EXE_worker-rank"));
        rank.arg("export-script").args([path("net.pt"), path("weights"), path("out.pt")]).output().unwrap()
    };
    let exact = export(0.75);
    assert!(exact.status.success(), "{}", String::from_utf8_lossy(&exact.stderr));
    let rounded = export(0.7);
    let words = "the exported module has other values in `scale.weight` after it is loaded";
    assert!(!rounded.status.success());
    assert!(String::from_utf8_lossy(&rounded.stderr).contains(words), "{}", String::from_utf8_lossy(&rounded.stderr));
}
