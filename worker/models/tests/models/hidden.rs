//! TorchScript modules with hidden effects: assigned buffers, state outside of buffers, changes of parameters, tasks.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::{TRAINING, alone, bits, chain, descend, image_shape, modules, samples, state, watched};
use lockstep_data::{Batch, SampleShape};
use lockstep_models::{Context, Model, Watched};
use tch::Tensor;

fn shape() -> SampleShape {
    image_shape(&[1, 4, 4], 3)
}

fn load(dir: &Path, name: &str) -> Result<Watched, String> {
    watched(dir, name, &shape())
}

fn names(model: &dyn Model) -> Vec<String> {
    model.parameters().iter().map(|parameter| parameter.name.clone()).collect()
}

#[test]
fn assigned_buffers_have_the_values_losses_and_gradients_of_python() {
    let _alone = alone();
    let dir = modules("modules.py");
    let model = load(dir.path(), "assigned").unwrap();
    let answer: BTreeMap<String, Tensor> =
        Tensor::read_npz(dir.path().join("assigned.npz")).unwrap().into_iter().collect();
    let batch = Batch::new(answer["inputs"].shallow_clone(), answer["targets"].shallow_clone());
    // Handles to the buffers, as checkpoints and fingerprints have them.
    let held: Vec<(String, Tensor)> =
        model.buffers().iter().map(|(name, buffer)| (name.clone(), buffer.shallow_clone())).collect();
    for step in 0..3 {
        let loss = model.loss(&batch, &TRAINING).unwrap();
        assert_eq!(bits(&loss), bits(&answer[&format!("{step}/loss")]), "step {step}");
        let tensors: Vec<&Tensor> = model.parameters().iter().map(|parameter| &parameter.tensor).collect();
        let grads = Tensor::run_backward(&[&loss], &tensors, false, false);
        for (name, grad) in names(&model).iter().zip(&grads) {
            assert_eq!(bits(grad), bits(&answer[&format!("{step}/grad/{name}")]), "step {step}: {name}");
        }
        for (name, buffer) in &held {
            assert_eq!(bits(buffer), bits(&answer[&format!("{step}/buffer/{name}")]), "step {step}: {name}");
        }
        model.check().unwrap();
    }
    // The module reads restored values.
    let before: Vec<Tensor> = held.iter().map(|(_, buffer)| buffer.copy()).collect();
    let first = model.loss(&batch, &TRAINING).unwrap();
    for ((_, buffer), kept) in held.iter().zip(&before) {
        buffer.shallow_clone().copy_(kept);
    }
    assert_eq!(bits(&model.loss(&batch, &TRAINING).unwrap()), bits(&first));
}

#[test]
fn an_evaluation_leaves_no_trace_of_buffers_that_are_assigned_or_not_contiguous() {
    let _alone = alone();
    let dir = modules("modules.py");
    for name in ["assigned", "strided"] {
        let batch = samples(&shape(), 8, 0, 3);
        let run = |evaluate: bool| {
            let model = load(dir.path(), name).unwrap();
            let mut seen = Vec::new();
            for _ in 0..3 {
                seen.push(descend(&model, &batch, 0.1).to_bits());
                if evaluate {
                    let before = state(&model);
                    model.evaluate(&batch, &Context::default()).unwrap();
                    assert!(before == state(&model), "{name}");
                }
            }
            (seen, state(&model))
        };
        let with = run(true);
        assert!(with == run(false), "{name}");
        assert!(with.0[0] != with.0[1], "{name}");
    }
}

#[test]
fn state_that_checkpoints_do_not_hold_is_refused_by_its_name() {
    let _alone = alone();
    let dir = modules("modules.py");
    for (module, words) in [
        ("number", "`forward` assigns the attribute `n`, which checkpoints do not hold: register it as a buffer"),
        ("listed", "`forward` changes the attribute `past` by `aten::append`"),
        ("dictionary", "`forward` changes the attribute `counts` by `aten::_set_item`"),
        ("plain", "`forward` changes the attribute `below.table` by `aten::add_`"),
        ("aliased", "`forward` changes the attribute `mean` by `aten::batch_norm`"),
        ("past", "`forward` changes the parameter `inner.bias` by `aten::mul_`, bypassing autograd (`.data`)"),
        ("replaced", "`forward` assigns the parameter `inner.weight`, which only the optimizer may change"),
        ("shares", "`forward` assigns the buffer `ema`, which shares memory with `other`"),
        ("transposed", "the parameters `second` and `inner.weight` share memory and are not one tensor"),
        ("slice", "the parameters `second` and `inner.weight` share memory"),
        ("row", "the parameters `second` and `inner.weight` share memory"),
        ("same", "the parameters `second` and `inner.weight` share memory"),
        ("expanded", "the parameter `second` is an expanded view"),
        ("buffer-sparse", "the buffer `b` is sparse, quantized"),
        ("buffer-quantized", "the buffer `b` is sparse, quantized"),
        ("buffer-uint16", "the buffer `b` has elements of a type that checkpoints do not know"),
        ("named", "the buffer `__metadata__` has a name that safetensors files reserve"),
        ("buffer-complex128", "the buffer `b` has complex elements of a width that exports cannot hold"),
        ("buffer-repeated", "the buffer `b` is an expanded view"),
    ] {
        let refused = load(dir.path(), module).map(|_| ()).unwrap_err();
        assert!(refused.contains(words), "{module}: {refused}");
    }
}

#[test]
fn modules_that_only_read_what_they_do_not_register_train_on() {
    let _alone = alone();
    let dir = modules("modules.py");
    let batch = samples(&shape(), 8, 0, 3);
    for (name, parameters) in [
        ("fair", &["inner.weight", "inner.bias"][..]),
        ("apart", &["left", "right", "inner.weight", "inner.bias"]),
        ("strided", &["inner.weight", "inner.bias"]),
    ] {
        let model = load(dir.path(), name).unwrap();
        assert_eq!(names(&model), parameters);
        for _ in 0..3 {
            descend(&model, &batch, 0.1);
        }
        model.look_closely(true);
        descend(&model, &batch, 0.1);
        model.evaluate(&batch, &Context::default()).unwrap();
    }
}

#[test]
fn changes_that_the_code_does_not_show_end_at_the_step_that_made_them() {
    let _alone = alone();
    let dir = modules("modules.py");
    let batch = samples(&shape(), 8, 0, 3);
    let fails = |name: &str| chain(&load(dir.path(), name).unwrap().loss(&batch, &TRAINING).unwrap_err());
    for (module, words) in [
        ("grows", "`forward` changed the buffer `ema` from Float of shape [3] on cpu to Float of shape [4] on cpu"),
        ("turns", "`forward` changed the strides of the buffer `square` to [1, 3]"),
        ("shrinks", "the forward pass changed the parameter `inner.weight`, which only the optimizer may"),
    ] {
        let failed = fails(module);
        assert!(failed.contains(words), "{module}: {failed}");
    }
    let model = load(dir.path(), "evaluated").unwrap();
    descend(&model, &batch, 0.1);
    let failed = chain(&model.evaluate(&batch, &Context::default()).unwrap_err());
    assert!(failed.contains("the forward pass changed the parameter `inner.weight`"), "{failed}");
    let model = load(dir.path(), "widens").unwrap();
    let failed = chain(&model.evaluate(&batch, &Context::default()).unwrap_err());
    let words = "changed the buffer `ema` from Float of shape [3] to Float of shape [1, 3]";
    assert!(failed.contains(words), "{failed}");
}

/// If tasks ran in parallel, they would draw in another order each time.
#[test]
fn tasks_draw_in_the_order_in_which_they_are_started() {
    let _alone = alone();
    let dir = modules("modules.py");
    let batch = samples(&shape(), 8, 0, 3);
    let run = |name: &str| {
        let model = load(dir.path(), name).unwrap();
        tch::manual_seed(7);
        let evaluated = model.evaluate(&batch, &Context::default()).unwrap().loss_sum.to_bits();
        let losses: Vec<u64> = (0..10).map(|_| descend(&model, &batch, 0.1).to_bits()).collect();
        (evaluated, losses, state(&model))
    };
    let forked = run("forked");
    // Only the evaluations are compared: with gradients libtorch uses another dropout operator if there are no tasks.
    assert_eq!(forked.0, run("straight").0, "as if each were called where it is started");
    for _ in 0..3 {
        assert!(run("forked") == forked);
    }
}
