//! TorchScript modules with effects that neither the schemas of operators nor the values of buffers show. They are rejected, and the error
//! names the attribute, operator or switch. Harmless modules that look similar train.

use std::path::Path;

use crate::support::{TRAINING, alone, chain, descend, image_shape, modules, samples, state, watched};
use lockstep_data::SampleShape;
use lockstep_models::{Context, Model, Watched};
use lockstep_tch_ext::determinism::{Switches, apply};
use tch::{Device, Kind, Tensor};

fn shape() -> SampleShape {
    image_shape(&[1, 4, 4], 3)
}

fn load(dir: &Path, name: &str) -> Result<Watched, String> {
    watched(dir, name, &shape())
}

#[test]
fn operators_and_attributes_that_no_run_repeats_are_refused_by_name() {
    let _alone = alone();
    let dir = modules("unseen.py");
    for (module, words) in [
        (
            "constantnorm",
            "`forward` changes a tensor that is part of its code by `aten::batch_norm`, which checkpoints",
        ),
        ("instancenorm", "`forward` changes the attribute `mean` by `aten::instance_norm`"),
        ("boxed", "`forward` changes the attribute `table` by `aten::add_`"),
        ("foreach", "`forward` changes the attribute `table` by `aten::_foreach_add_`"),
        ("counted", "`forward` assigns the attribute `counter.n`, which checkpoints do not hold"),
        ("dataat", "`forward` changes the parameter `inner.weight` by `aten::mul_`, bypassing autograd (`.data`)"),
        ("setdata", "`forward` calls `aten::set_data`, which replaces the memory of a tensor"),
        ("inner", "`forward` calls `aten::backward`, which adds to gradients before the training step does"),
        ("grad", "`forward` calls `prim::grad`, which reads a gradient that an earlier pass of this process left"),
        ("gradofparameter", "`forward` calls `aten::grad`, which computes the gradient of a parameter"),
        ("generating", "its module `noise` is saved and loaded by code of its own (`__getstate__`, `__setstate__`)"),
        (
            "madegenerator",
            "`forward` calls `aten::randn`, which draws from a generator of the module (`torch.Generator`)",
        ),
        ("packs", "its module `scale` is saved and loaded by code of its own (`__getstate__`, `__setstate__`)"),
        ("version", "`forward` calls `aten::_version`, which reads a tensor's version counter"),
        ("resized", "`forward` calls `aten::resize_`, which changes the size of memory that outlives the call"),
        ("clock", "`forward` calls `prim::TimePoint`, which reads the clock"),
        ("identity", "`forward` calls `prim::id`, which reads a memory address"),
        ("hashed", "`forward` calls `aten::hash`, which reads a memory address"),
        ("written", "`forward` calls `aten::format`, which reads a memory address"),
        ("placed", "`forward` calls `prim::index`, which reads the index of the device"),
        (
            "hooked",
            "its hook `triple` around `forward` would not run, because only calls from Python run it: call it in `forward`",
        ),
        (
            "reinterpreted",
            "`forward` calls `inductor::_reinterpret_tensor`, which belongs to a compiler or a back end and may read uninitialised memory",
        ),
        ("addressed", "`forward` calls `mkldnn::data_ptr`, which belongs to a compiler or a back end"),
        ("quantized", "`forward` calls `aten::_empty_affine_quantized`, which returns uninitialised memory"),
        ("default", "`forward` changes a tensor that is part of its code by `aten::add_`"),
        ("packedbias", "`forward` changes the attribute `packed` by `aten::add_`"),
        ("twice", "`forward` assigns the buffer `first.mean`, which shares memory with `second.mean`"),
        ("unpacked", "`forward` changes the attribute `both` by `aten::add_`"),
        ("cast", "`forward` calls `torch.autocast`, which TorchScript applies only with its own gradient formulas"),
        ("behind", "`forward` calls `aten::as_strided`, which may reach memory beyond the elements of `b`"),
        (
            "packedweight",
            "`forward` calls `aten::fbgemm_pack_gemm_matrix_fp16`, which returns a tensor that contains a memory address",
        ),
        ("optionalbuffer", "`forward` changes the attribute `ema` by `aten::mul_`, which checkpoints do not hold"),
        ("optionalnorm", "`forward` changes the attribute `mean` by `aten::batch_norm`"),
        ("setalias", "`forward` calls `aten::set`, which replaces the memory of a tensor"),
        ("file", "`forward` calls `aten::from_file`, which reads or writes a file that is not part of the run's data"),
    ] {
        let refused = load(dir.path(), module).map(|_| ()).expect_err(module);
        assert!(refused.contains(words), "{module}: {refused}");
    }
}

#[test]
fn what_only_a_pass_shows_ends_at_that_pass_by_name() {
    let _alone = alone();
    let dir = modules("unseen.py");
    let batch = samples(&shape(), 8, 0, 3);
    for (module, words) in [
        ("dropped", "`forward` changed the attribute `table`, but checkpoints do not hold it"),
        ("droppeddata", "`forward` changed the attribute `table`, but checkpoints do not hold it"),
        ("sparse", "`forward` changed the attribute `table`, but checkpoints do not hold it"),
        ("scales", "`forward` changed the attribute `table`, but checkpoints do not hold it"),
        (
            "aliasofparameter",
            "`forward` made the buffer `before` share memory with `inner.weight`: assign a copy (`.clone()`)",
        ),
        ("aliasofbuffer", "share memory with `"),
        ("flagged", "`forward` changed the attribute `table`, but checkpoints do not hold it"),
        (
            "gradmode",
            "`forward` changes whether gradients are computed (`torch.set_grad_enabled`) and does not restore it",
        ),
        ("flag", "changed the buffer `b` from `requires_grad = False` to `requires_grad = True`"),
        ("turned", "changed the buffer `b` from strides [3, 1] to strides [1, 3]"),
        ("frozen", "changed the parameter `extra` from `requires_grad = True` to `requires_grad = False`"),
    ] {
        let model = load(dir.path(), module).unwrap();
        let failed = chain(&model.loss(&batch, &TRAINING).expect_err(module));
        assert!(failed.contains(words), "{module}: {failed}");
        let computed = model.parameters().iter().any(|parameter| (&parameter.tensor * 2.0).requires_grad());
        assert!(computed, "{module}: gradients are computed again");
    }
    let model = load(dir.path(), "turnedevaluation").unwrap();
    descend(&model, &batch, 0.1);
    let failed = chain(&model.evaluate(&batch, &Context::default()).unwrap_err());
    assert!(failed.contains("changed the buffer `b` from strides [3, 1] to strides [1, 3]"), "{failed}");
}

/// Each pass begins with the values of the buffer only, so the number of earlier passes changes no gradient.
#[test]
fn a_buffer_forgets_its_history_of_gradients_after_each_pass() {
    let _alone = alone();
    let dir = modules("unseen.py");
    let batch = samples(&shape(), 8, 0, 3);
    let whole = load(dir.path(), "undetached").unwrap();
    for _ in 0..3 {
        descend(&whole, &batch, 0.1);
        assert!(!whole.buffers()[0].1.requires_grad());
    }
    let resumed = load(dir.path(), "undetached").unwrap();
    tch::no_grad(|| {
        let tensors = |model: &Watched| -> Vec<Tensor> {
            let parameters = model.parameters().iter().map(|parameter| parameter.tensor.shallow_clone());
            parameters.chain(model.buffers().iter().map(|(_, buffer)| buffer.shallow_clone())).collect()
        };
        for (mut to, from) in tensors(&resumed).into_iter().zip(tensors(&whole)) {
            to.copy_(&from);
        }
    });
    assert_eq!(descend(&resumed, &batch, 0.1).to_bits(), descend(&whole, &batch, 0.1).to_bits());
    assert!(state(&resumed) == state(&whole));
}

/// The third pass changes the weight without the version counter, through an alias that no schema shows.
#[test]
fn a_module_that_can_evade_the_version_counter_is_looked_at_closely_at_each_pass() {
    let _alone = alone();
    let dir = modules("unseen.py");
    let batch = samples(&shape(), 8, 0, 3);
    for name in ["droppedweight", "pieces"] {
        let model = load(dir.path(), name).unwrap();
        model.look_closely(false);
        for _ in 0..2 {
            descend(&model, &batch, 0.1);
        }
        let failed = chain(&model.loss(&batch, &TRAINING).unwrap_err());
        assert!(failed.contains("the forward pass changed the parameter `inner.weight`"), "{name}: {failed}");
    }
}

#[test]
fn fair_modules_that_look_alike_train_on() {
    let _alone = alone();
    let dir = modules("unseen.py");
    let batch = samples(&shape(), 8, 0, 3);
    for name in ["constantread", "penalty", "nograd", "configured", "normal", "once", "swapped", "optionalconstant"] {
        let model = load(dir.path(), name).unwrap();
        for _ in 0..3 {
            descend(&model, &batch, 0.1);
        }
        model.look_closely(true);
        descend(&model, &batch, 0.1);
        if name != "penalty" {
            model.evaluate(&batch, &Context::default()).unwrap();
        }
        model.check().unwrap();
    }
}

/// The module reads the same values each time, although the memory was another tensor's before.
#[test]
fn memory_that_nobody_has_written_is_filled() {
    let _alone = alone();
    let dir = modules("unseen.py");
    let batch = samples(&shape(), 8, 0, 3);
    let switches = Switches {
        deterministic_algorithms: true,
        cudnn_benchmark: false,
        cudnn_deterministic: true,
        tf32: false,
        intra_op_threads: 1,
        inter_op: None,
        fill_uninitialized: false,
    };
    apply(&switches).unwrap();
    let run = |module: &str, left: f64| {
        let model = load(dir.path(), module).unwrap();
        let losses: Vec<u64> = (0..5)
            .map(|_| {
                let before = [8 * 4096, 8 * 64 * 25].into_iter().chain([3; 64]);
                drop(before.map(|size| Tensor::full([size], left, (Kind::Float, Device::Cpu))).collect::<Vec<_>>());
                descend(&model, &batch, 0.1).to_bits()
            })
            .collect();
        (losses, state(&model))
    };
    for module in ["unfilled", "aligned", "solved"] {
        assert!(run(module, 0.0) == run(module, 0.5), "{module}");
    }
}
