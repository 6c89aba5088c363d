//! TorchScript modules train as in PyTorch, keep their names and buffers, and have evaluations without side effects.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{TRAINING, alone, bits, chain, data_for, descend, image_shape, job, modules, samples, state};
use lockstep_data::files::{Reading, locate};
use lockstep_data::{Batch, SampleShape, Targets};
use lockstep_host::data::{Listed, hash_files};
use lockstep_models::{Context, Model, build_model};
use lockstep_store::BlobStore;
use lockstep_tch_ext::generator;
use tch::{Device, Kind, Tensor};

fn shape() -> SampleShape {
    image_shape(&[1, 4, 4], 3)
}

fn load(dir: &Path, name: &str, output: &str) -> Result<Box<dyn Model>, String> {
    tch::set_num_threads(1);
    let spec = format!(r#"{{ kind = "torchscript", path = "{name}.pt", output = "{output}" }}"#);
    let built = build_model(&job(&spec, data_for(&spec), &[]), &shape(), &dir.into(), Device::Cpu);
    built.map_err(|error| chain(&error).replace(&format!("{}/", dir.display()), ""))
}

#[test]
fn a_module_is_the_same_as_in_pytorch() {
    let _alone = alone();
    let dir = modules("modules.py");
    let model = load(dir.path(), "net", "logits").unwrap();
    let names: Vec<&str> = model.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(names, ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight", "head.bias"]);
    let buffers: Vec<&str> = model.buffers().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(buffers, ["scale", "body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"]);

    let answer: BTreeMap<String, Tensor> =
        Tensor::read_npz(dir.path().join("answer.npz")).unwrap().into_iter().collect();
    let batch = Batch::new(answer["inputs"].shallow_clone(), answer["targets"].shallow_clone());
    tch::manual_seed(1);
    let loss = model.loss(&batch, &TRAINING).unwrap();
    assert_eq!(bits(&loss), bits(&answer["loss"]));
    let tensors: Vec<&Tensor> = model.parameters().iter().map(|parameter| &parameter.tensor).collect();
    for (name, grad) in names.iter().zip(Tensor::run_backward(&[&loss], &tensors, false, false)) {
        assert_eq!(bits(&grad), bits(&answer[&format!("grad/{name}")]), "{name}");
    }
    for (name, buffer) in &model.buffers()[1..] {
        assert_eq!(bits(buffer), bits(&answer[&format!("buffer/{name}")]), "{name}");
    }
    assert!(model.describe().starts_with("TorchScript module `net.pt`: 243 parameters\n"), "{}", model.describe());
}

#[test]
fn another_file_than_a_module_is_told_what_it_is_and_what_to_do() {
    let _alone = alone();
    let dir = modules("others.py");
    for (name, what) in [
        ("state", "a file of `torch.save` (a state_dict"),
        ("whole", "a file of `torch.save` (a state_dict, or a module by reference"),
        ("old", "a file of `torch.save` in the form before PyTorch 1.6"),
        ("exported", "a program of `torch.export` (`.pt2`)"),
        ("tensors", "a safetensors file"),
        ("array", "a NumPy array"),
    ] {
        let Err(error) = load(dir.path(), name, "logits") else { panic!("{name} is taken") };
        assert!(error.contains(what) && error.contains("`torch.jit.save(torch.jit.script(model)"), "{name}: {error}");
    }
    let Err(error) = load(dir.path(), "words", "logits") else { panic!("it is taken") };
    assert!(error.contains("words.pt"), "{error}");
}

#[test]
fn gradients_are_those_of_autograd_and_not_of_the_executor() {
    let _alone = alone();
    let dir = modules("eager.py");
    let answer: BTreeMap<String, Tensor> =
        Tensor::read_npz(dir.path().join("eager.npz")).unwrap().into_iter().collect();
    let batch = Batch::new(answer["inputs"].shallow_clone(), answer["targets"].shallow_clone());
    for name in ["target", "ties", "spectrum", "power", "observed"] {
        let model = load(dir.path(), name, "logits").unwrap();
        let loss = model.loss(&batch, &TRAINING).unwrap();
        assert_eq!(bits(&loss), bits(&answer[&format!("{name}/loss")]), "{name}");
        let parameters = model.parameters();
        let tensors: Vec<&Tensor> = parameters.iter().map(|parameter| &parameter.tensor).collect();
        for (parameter, grad) in parameters.iter().zip(Tensor::run_backward(&[&loss], &tensors, false, false)) {
            assert_eq!(bits(&grad), bits(&answer[&format!("{name}/{}", parameter.name)]), "{name}: {}", parameter.name);
        }
    }
}

#[test]
fn real_targets_are_refused_where_the_loss_takes_classes() {
    let _alone = alone();
    let dir = modules("modules.py");
    let shape = SampleShape { targets: Targets::Values { count: 3 }, ..shape() };
    let built = |output: &str, overrides: &[&str]| {
        let spec = format!(r#"{{ kind = "torchscript", path = "net.pt", output = "{output}" }}"#);
        build_model(&job(&spec, data_for(&spec), overrides), &shape, &dir.path().into(), Device::Cpu)
    };
    let refused = chain(&built("logits", &[]).err().unwrap());
    assert!(refused.contains("`batch.loss = \"mse\"`") && refused.contains("3 real values per sample"), "{refused}");
    built("logits", &["batch.loss=mse"]).unwrap();
    built("loss", &[]).unwrap();
}

#[test]
fn the_module_that_was_verified_is_loaded_whatever_its_path_leads_to_now() {
    let _alone = alone();
    let dir = modules("modules.py");
    let store = BlobStore::open(&dir.path().join("store")).unwrap();
    let path = dir.path().join("net.pt");
    let names = |model: &dyn Model| model.parameters().iter().map(|own| own.name.clone()).collect::<Vec<_>>();
    let expected = names(load(dir.path(), "net", "logits").unwrap().as_ref());
    let files = hash_files(&[&Listed::new(dir.path(), "net.pt")], None, &|_| ()).unwrap();
    for in_memory in [0, 1 << 30] {
        let reading = Reading { in_memory, by_path: false };
        let located = locate(dir.path(), &files, &store, false, reading).unwrap();
        fs::rename(&path, dir.path().join("kept")).unwrap();
        fs::write(&path, "no module").unwrap();
        let spec = r#"{ kind = "torchscript", path = "net.pt" }"#;
        let built = build_model(&job(spec, data_for(spec), &[]), &shape(), &located.files, Device::Cpu).unwrap();
        assert_eq!(names(built.as_ref()), expected);
        fs::rename(dir.path().join("kept"), &path).unwrap();
    }
}

#[test]
fn tied_weights_and_other_precisions_have_the_losses_and_gradients_of_pytorch() {
    let _alone = alone();
    let dir = modules("modules.py");
    let answer: BTreeMap<String, Tensor> = Tensor::read_npz(dir.path().join("tied.npz")).unwrap().into_iter().collect();
    let batch = Batch::new(answer["inputs"].shallow_clone(), answer["targets"].shallow_clone());
    for (name, kind) in [("float32", Kind::Float), ("float64", Kind::Double), ("bfloat16", Kind::BFloat16)] {
        let model = load(dir.path(), &format!("tied-{name}"), "logits").unwrap();
        let names: Vec<&str> = model.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["first.weight", "head.weight", "head.bias"], "one tensor under two names is one parameter");
        assert!(model.parameters().iter().all(|parameter| parameter.tensor.kind() == kind));
        let loss = model.loss(&batch, &TRAINING).unwrap();
        let widened = |tensor: &Tensor| bits(&tensor.to_kind(Kind::Double));
        assert_eq!(widened(&loss), bits(&answer[&format!("{name}/loss")]), "{name}");
        let tensors: Vec<&Tensor> = model.parameters().iter().map(|parameter| &parameter.tensor).collect();
        for (parameter, grad) in names.iter().zip(Tensor::run_backward(&[&loss], &tensors, false, false)) {
            assert!(widened(&grad) == bits(&answer[&format!("{name}/{parameter}")]), "{name}: {parameter}");
        }
        assert_eq!(model.evaluate(&batch, &Context::default()).unwrap().count, 8);
    }
}

#[test]
fn modules_learn_with_either_output() {
    let _alone = alone();
    let dir = modules("modules.py");
    for (name, output) in [("net", "logits"), ("loss", "loss")] {
        let model = load(dir.path(), name, output).unwrap();
        let batch = samples(&shape(), 32, 0, 3);
        let losses: Vec<f64> = (0..300).map(|_| descend(model.as_ref(), &batch, 0.2)).collect();
        assert!(losses[299] < 0.4 * losses[0], "{name}: {} to {}", losses[0], losses[299]);
        let sums = model.evaluate(&batch, &Context::default()).unwrap();
        assert_eq!(sums.count, 32);
        assert_eq!(sums.right.is_some(), output == "logits");
        assert!(sums.loss_sum / 32.0 < 0.5 * losses[0], "{name}: {sums:?}");
    }
}

#[test]
fn an_evaluation_leaves_no_trace_even_of_a_module_that_draws_and_counts() {
    let _alone = alone();
    let dir = modules("modules.py");
    for name in ["net", "untidy"] {
        let batch = samples(&shape(), 8, 0, 3);
        let run = |evaluate: bool| {
            let model = load(dir.path(), name, "logits").unwrap();
            tch::manual_seed(4);
            let mut seen = Vec::new();
            for _ in 0..4 {
                seen.push(descend(model.as_ref(), &batch, 0.1).to_bits());
                if evaluate {
                    let before = (state(model.as_ref()), generator::get_state(Device::Cpu).unwrap());
                    model.evaluate(&batch, &Context::default()).unwrap();
                    let after = (state(model.as_ref()), generator::get_state(Device::Cpu).unwrap());
                    assert!(before == after, "{name}");
                }
            }
            (seen, state(model.as_ref()))
        };
        assert!(run(true) == run(false), "{name}");
    }
}

#[test]
fn modules_that_cannot_be_trained_are_refused() {
    let _alone = alone();
    let dir = modules("modules.py");
    let refused = |name: &str| load(dir.path(), name, "logits").map(|_| ()).unwrap_err();
    assert_eq!(refused("empty"), "TorchScript module `empty.pt`: it has no parameters to train");
    assert!(refused("half").contains("parameter `weight` has elements of Half"), "{}", refused("half"));
    assert!(
        refused("missing").contains("`missing.pt` as a TorchScript module: No such file"),
        "{}",
        refused("missing")
    );
    fs::write(dir.path().join("text.pt"), "no module at all").unwrap();
    assert!(refused("text").contains("`text.pt` as a TorchScript module"), "{}", refused("text"));
    let whole = fs::read(dir.path().join("net.pt")).unwrap();
    fs::write(dir.path().join("cut.pt"), &whole[..whole.len() / 2]).unwrap();
    assert!(refused("cut").contains("`cut.pt` as a TorchScript module"), "{}", refused("cut"));
}

#[test]
fn answers_that_are_not_what_the_job_says_are_refused() {
    let _alone = alone();
    let dir = modules("modules.py");
    let batch = samples(&shape(), 8, 0, 3);
    let refused = |name: &str, output: &str| {
        let model = load(dir.path(), name, output).unwrap();
        assert!(model.evaluate(&batch, &Context::default()).is_err());
        chain(&model.loss(&batch, &TRAINING).unwrap_err())
    };
    assert_eq!(
        refused("wide", "logits"),
        "the module returned Float of shape [8, 1, 3], but `model.output = \"logits\"` needs \
         floats of shape [8, classes]"
    );
    assert!(
        refused("pair", "logits").contains("`forward` returns 2 tensors: return one"),
        "{}",
        refused("pair", "logits")
    );
    assert!(refused("net", "loss").contains("libtorch"), "{}", refused("net", "loss"));
    let model = load(dir.path(), "net", "logits").unwrap();
    let few = samples(&image_shape(&[1, 3, 3], 3), 8, 0, 3);
    assert!(chain(&model.loss(&few, &TRAINING).unwrap_err()).contains("libtorch"));
}
