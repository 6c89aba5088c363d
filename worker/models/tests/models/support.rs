//! Helpers of this crate's tests.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_data::{Batch, InputKind, SampleShape, Targets};
use lockstep_models::{Context, Model, Watched, build_model};
use tch::{Device, Kind, Tensor};

static TORCH: Mutex<()> = Mutex::new(());

/// Locks torch's generator, of which a process has only one, against other tests of the process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    TORCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job with these `model` and `data` tables.
pub(crate) fn job(model: &str, data: &str, overrides: &[&str]) -> JobSpec {
    let text = format!(
        "name = \"t\"\nseed = 7\nsteps = 10\nbatch = {{ size = 8 }}\noptimizer = {{ kind = \"sgd\", lr = 0.1 }}\n\
         model = {model}\ndata = {data}\n"
    );
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    parse_toml(&text, &overrides).unwrap()
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The model of the table `spec`, for samples of `shape`, on the CPU with one thread.
pub(crate) fn model(spec: &str, shape: &SampleShape) -> Box<dyn Model> {
    tch::set_num_threads(1);
    build_model(&job(spec, data_for(spec), &[]), shape, &Path::new(".").into(), Device::Cpu).unwrap()
}

/// A directory for one test, with the TorchScript modules that `tests/oracle/<script>` writes.
pub(crate) fn modules(script: &str) -> tempfile::TempDir {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(script);
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(lockstep_support::modules(&script, Path::new(env!("CARGO_TARGET_TMPDIR")))).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// The module `name` of `dir` for samples of `shape`, wrapped as in training; or the chain of errors, without the path `dir`.
pub(crate) fn watched(dir: &Path, name: &str, shape: &SampleShape) -> Result<Watched, String> {
    tch::set_num_threads(1);
    let spec = format!(r#"{{ kind = "torchscript", path = "{name}.pt" }}"#);
    let built = build_model(&job(&spec, data_for(&spec), &[]), shape, &dir.into(), Device::Cpu);
    built.map(Watched::new).map_err(|error| chain(&error).replace(&format!("{}/", dir.display()), ""))
}

/// A `data` table that fits a model; the files need not exist.
pub(crate) fn data_for(spec: &str) -> &'static str {
    if spec.contains("gpt") {
        r#"{ kind = "tokens", path = "x" }"#
    } else {
        r#"{ kind = "npy", inputs = "x", targets = "y" }"#
    }
}

/// The shape of image samples with `classes` classes.
pub(crate) fn image_shape(input: &[i64], classes: i64) -> SampleShape {
    SampleShape { input: input.to_vec(), kind: InputKind::Image, targets: Targets::Classes { count: classes } }
}

/// The shape of samples of `context` tokens.
pub(crate) fn token_shape(context: i64) -> SampleShape {
    SampleShape { input: vec![context], kind: InputKind::Tokens, targets: Targets::Tokens }
}

/// `count` samples of `shape`, the same ones for the same seed. Targets can be learned: a class is the index of the largest input, a
/// token is the previous token plus one.
pub(crate) fn samples(shape: &SampleShape, count: i64, vocabulary: i64, seed: i64) -> Batch {
    tch::manual_seed(seed);
    let mut size = vec![count];
    size.extend(&shape.input);
    if shape.kind == InputKind::Tokens {
        let inputs = Tensor::randint(vocabulary, &size, (Kind::Int64, Device::Cpu));
        let targets = (&inputs + 1).remainder(vocabulary);
        return Batch::new(inputs, targets);
    }
    let inputs = Tensor::randn(&size, (Kind::Float, Device::Cpu));
    let flat = inputs.flatten(1, -1);
    let targets = match shape.targets {
        Targets::Classes { count } => flat.narrow(1, 0, count).argmax(1, false),
        Targets::Values { count } => flat.narrow(1, 0, count).tanh().contiguous(),
        Targets::Tokens => unreachable!("only tokens have tokens as targets"),
    };
    Batch::new(inputs, targets)
}

/// The bits of a tensor's elements.
pub(crate) fn bits(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.detach().contiguous();
    lockstep_tch_ext::memory::bytes_of(&tensor).unwrap()
}

/// The bits of all parameters and buffers of a model, by name.
pub(crate) fn state(model: &dyn Model) -> Vec<(String, Vec<u8>)> {
    let parameters = model.parameters().iter().map(|parameter| (parameter.name.clone(), bits(&parameter.tensor)));
    parameters.chain(model.buffers().iter().map(|(name, tensor)| (name.clone(), bits(tensor)))).collect()
}

/// The context of a training pass.
pub(crate) const TRAINING: Context = Context { step: 0, rank: 0, training: true, root: 0 };

/// Makes one step of plain gradient descent, and returns the loss before it.
pub(crate) fn descend(model: &dyn Model, batch: &Batch, lr: f64) -> f64 {
    let loss = model.loss(batch, &TRAINING).unwrap();
    let tensors: Vec<&Tensor> = model.parameters().iter().map(|parameter| &parameter.tensor).collect();
    let grads = Tensor::run_backward(&[&loss], &tensors, false, false);
    tch::no_grad(|| {
        for (tensor, grad) in tensors.iter().zip(&grads) {
            let _same = tensor.shallow_clone().g_sub_(&(grad * lr));
        }
    });
    loss.double_value(&[])
}
