//! TorchScript modules from PyTorch: names, buffers, training in place; and files that are not TorchScript modules.

use std::path::PathBuf;

use lockstep_tch_ext::script::{self, ScriptModule};
use lockstep_tch_ext::{Error, fold, memory, optim};
use tch::{Device, Kind, Tensor};

struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        tch::set_num_threads(1);
        let made = Self { folder: tempfile::tempdir().unwrap() };
        crate::common::python("script.py", &[&made.path("net.pt"), &made.path("trained")]);
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn all_bytes(module: &ScriptModule) -> Vec<u8> {
    let named = module.named_parameters().into_iter().chain(module.named_buffers());
    named.flat_map(|(_, tensor)| memory::bytes_of(&tensor).unwrap()).collect()
}

#[test]
fn a_module_keeps_its_names_trains_in_place_and_gives_pytorchs_bits() {
    lockstep_tch_ext::determinism::pin_torchscript_executor();
    let made = Made::new();
    let module = ScriptModule::load(&made.path("net.pt"), Device::Cpu).unwrap();
    let parameters = module.named_parameters();
    let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight", "head.bias"]);
    let buffers: Vec<String> = module.named_buffers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(buffers, ["body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"]);

    module.train(true).unwrap();
    tch::manual_seed(3);
    let x = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([6, 4]) / 10;
    let params: Vec<Tensor> = parameters.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
    let kind = optim::Kind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false };
    let listed = parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone(), 0.0)).collect();
    let mut optimizer = optim::Optimizer::new(kind, listed).unwrap();
    let lengths: Vec<i64> = params.iter().map(|param| param.numel() as i64).collect();
    let flat = Tensor::zeros([lengths.iter().sum::<i64>()], (Kind::Float, Device::Cpu));
    let pieces = flat.split_with_sizes(&lengths, 0);
    let grads: Vec<Tensor> =
        pieces.iter().zip(&params).map(|(piece, param)| piece.view(param.size().as_slice())).collect();
    for _ in 0..10 {
        let out = module.forward(&[x.shallow_clone()]).unwrap();
        assert_eq!(out.len(), 2, "the tuple's tensors, in order");
        let loss = (&out[0] * &out[0]).mean(None::<Kind>);
        fold::grads_into(&loss, &params, &flat, &mut vec![0; params.len()]).unwrap();
        optimizer.step(&optim::Update::all(&grads, 0.1)).unwrap();
    }
    assert!(all_bytes(&module) == std::fs::read(made.path("trained")).unwrap(), "bits differ from PyTorch's training");

    // Saved with trained weights, which are the same after loading.
    module.save(&made.path("saved.pt")).unwrap();
    let again = ScriptModule::load(&made.path("saved.pt"), Device::Cpu).unwrap();
    assert_eq!(all_bytes(&again), all_bytes(&module));
    let file = std::fs::read(made.path("saved.pt")).unwrap();
    let from_memory = |bytes: &[u8]| ScriptModule::load_bytes(bytes, &made.path("saved.pt"), Device::Cpu);
    assert_eq!(all_bytes(&from_memory(&file).unwrap()), all_bytes(&module));
    assert!(matches!(from_memory(&file[..file.len() / 2]), Err(Error::Script { .. })));
    again.train(false).unwrap();
    let answer = || memory::bytes_of(&again.forward(&[x.shallow_clone()]).unwrap()[0].contiguous()).unwrap();
    assert_eq!(answer(), answer(), "no dropout in evaluation mode");
    assert!(matches!(again.forward_one(&[x.shallow_clone()]), Err(Error::Script { .. })), "two tensors");
    assert!(matches!(again.forward(&[]), Err(Error::Torch(_))), "too few arguments");
    assert!(matches!(again.forward(&[x.transpose(0, 1)]), Err(Error::Torch(_))), "shapes that do not fit");
}

/// With both of libtorch's executors.
#[test]
fn autograd_differentiates_the_code_of_modules() {
    assert_eq!(script::gradients().unwrap(), "autograd");
    lockstep_tch_ext::determinism::pin_torchscript_executor();
    assert_eq!(script::gradients().unwrap(), "autograd");
}

#[test]
fn a_file_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let load = || ScriptModule::load(&path, Device::Cpu);
    assert!(matches!(load(), Err(Error::Script { .. })), "missing");
    for content in [&b""[..], b"not a module", &[0; 4096], b"PK\x03\x04 and no more"] {
        std::fs::write(&path, content).unwrap();
        let error = load().unwrap_err();
        assert!(matches!(error, Error::Script { .. }));
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let made = Made::new();
    let whole = std::fs::read(made.path("net.pt")).unwrap();
    for cut in [whole.len() / 4, whole.len() / 2, whole.len() - 10] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(load(), Err(Error::Script { .. })), "cut at {cut} of {}", whole.len());
    }
    let missing = folder.path().join("no/such/folder.pt");
    let module = ScriptModule::load(&made.path("net.pt"), Device::Cpu).unwrap();
    assert!(matches!(module.save(&missing), Err(Error::Script { .. })));
}
