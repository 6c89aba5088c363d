//! Compares the built-in models with the same models in PyTorch, for the same seed and batch.
//!
//! Initial weights, loss, gradients and buffers are equal bit for bit, in full precision and with autocast to bfloat16, because both
//! sides run the same kernels. The `gpt` is also compared with an oracle whose attention consists of single operators: these are other
//! kernels, so the tolerance is 1e-6.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::{TRAINING, alone, bits, data_for, image_shape, job, samples, token_shape};
use lockstep_common::seed::{Stream, derive};
use lockstep_data::{InputKind, SampleShape, Targets};
use lockstep_models::{Context, build_model};
use lockstep_support::Again;
use tch::{Device, Tensor};

const BF16: &str = "numerics.autocast=bf16";

fn pytorch() -> Again {
    Again::new(Command::new("python3"), &["numpy", "torch"])
}

/// Builds both models, runs them on one batch, and compares all results.
fn compare(python: &Again, spec: &str, sizes: &str, shape: &SampleShape, overrides: &[&str], tolerance: f64) {
    let precision = if overrides.contains(&BF16) { "bf16" } else { "full" };
    tch::set_num_threads(1);
    let dir = tempfile::tempdir().unwrap();
    let (batch_path, answer_path) = (dir.path().join("batch.npz"), dir.path().join("answer.npz"));
    let batch = samples(shape, 8, 40, 5);
    Tensor::write_npz(&[("inputs", &batch.inputs), ("targets", &batch.targets)], &batch_path).unwrap();
    let job = job(spec, data_for(spec), overrides);
    let kind = spec.split('"').nth(1).unwrap();
    let seed = derive(job.seed, Stream::Init, 0, 0).to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/models.py");
    let [script, batch_file, answer_file] = [&script, &batch_path, &answer_path].map(|path| path.to_str().unwrap());
    let outcome = python.run(&[script, kind, sizes, &seed, precision, batch_file, answer_file]);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    let mut answer: BTreeMap<String, Tensor> = Tensor::read_npz(&answer_path).unwrap().into_iter().collect();

    let mut check = |name: String, ours: &Tensor, tolerance: f64| {
        let theirs = answer.remove(&name).unwrap_or_else(|| panic!("PyTorch has no `{name}`"));
        assert_eq!((ours.size(), ours.kind()), (theirs.size(), theirs.kind()), "{spec}: {name}");
        if tolerance == 0.0 {
            assert!(bits(ours) == bits(&theirs), "{spec}: the bits of {name} differ");
        } else {
            let apart = (ours - &theirs).abs().max().double_value(&[]);
            assert!(apart <= tolerance, "{spec}: {name} is {apart} apart");
        }
    };
    let model = build_model(&job, shape, &Path::new(".").into(), Device::Cpu).unwrap();
    for parameter in model.parameters() {
        check(format!("init/{}", parameter.name), &parameter.tensor.detach(), 0.0);
    }
    tch::manual_seed(1);
    let loss = model.loss(&batch, &TRAINING).unwrap();
    check("loss".to_owned(), &loss.detach(), tolerance);
    let tensors: Vec<&Tensor> = model.parameters().iter().map(|parameter| &parameter.tensor).collect();
    let grads = Tensor::run_backward(&[&loss], &tensors, false, false);
    for (parameter, grad) in model.parameters().iter().zip(&grads) {
        check(format!("grad/{}", parameter.name), grad, tolerance);
    }
    for (name, buffer) in model.buffers() {
        check(format!("buffer/{name}"), buffer, 0.0);
    }
    let sums = model.evaluate(&batch, &Context::default()).unwrap();
    let (eval_loss, right) = (answer.remove("eval_loss").unwrap(), answer.remove("right").unwrap());
    // Ours is a sum in double precision, PyTorch's a mean in single precision.
    assert!((sums.loss_sum / sums.count as f64 - eval_loss.double_value(&[])).abs() < 2e-6, "{spec}");
    assert_eq!(sums.right.map_or(-1, |right| right as i64), right.int64_value(&[]), "{spec}");
    assert!(answer.is_empty(), "{spec}: PyTorch has more: {:?}", answer.keys());
}

#[test]
fn an_mlp_is_the_same() {
    let (_alone, python) = (alone(), pytorch());
    let spec = r#"{ kind = "mlp", hidden = [40, 30], outputs = 5, dropout = 0.25 }"#;
    let sizes = r#"{"inputs": 64, "hidden": [40, 30], "outputs": 5, "dropout": 0.25}"#;
    compare(&python, spec, sizes, &image_shape(&[1, 8, 8], 5), &[], 0.0);
    compare(&python, spec, sizes, &image_shape(&[1, 8, 8], 5), &[BF16], 0.0);
}

#[test]
fn an_mlp_for_a_regression_is_the_same() {
    let (_alone, python) = (alone(), pytorch());
    for activation in ["gelu", "tanh"] {
        let spec = format!(r#"{{ kind = "mlp", hidden = [40], outputs = 2, activation = "{activation}" }}"#);
        let sizes = format!(r#"{{"inputs": 9, "hidden": [40], "outputs": 2, "activation": "{activation}"}}"#);
        let shape = SampleShape { input: vec![9], kind: InputKind::Float, targets: Targets::Values { count: 2 } };
        compare(&python, &spec, &sizes, &shape, &["batch.loss=mse"], 0.0);
    }
}

#[test]
fn a_resnet_is_the_same() {
    let (_alone, python) = (alone(), pytorch());
    for (channels, blocks, overrides) in [(1, 1, &[] as &[_]), (3, 2, &[]), (1, 1, &[BF16])] {
        let spec = format!(r#"{{ kind = "resnet", blocks = {blocks}, width = 8, outputs = 6 }}"#);
        let sizes = format!(r#"{{"channels": {channels}, "blocks": {blocks}, "width": 8, "outputs": 6}}"#);
        compare(&python, &spec, &sizes, &image_shape(&[channels, 12, 12], 6), overrides, 0.0);
    }
}

#[test]
fn a_gpt_is_the_same() {
    let (_alone, python) = (alone(), pytorch());
    let spec = r#"{ kind = "gpt", layers = 3, heads = 4, width = 32, context = 24, vocabulary = 40, dropout = 0.1 }"#;
    let sizes = r#"{"layers": 3, "heads": 4, "width": 32, "context": 24, "vocabulary": 40, "dropout": 0.1}"#;
    compare(&python, spec, sizes, &token_shape(24), &[], 1e-6);
    let fused = sizes.replace('}', r#", "fused": true}"#);
    compare(&python, spec, &fused, &token_shape(24), &[], 0.0);
    compare(&python, spec, &fused, &token_shape(24), &[BF16], 0.0);
}
