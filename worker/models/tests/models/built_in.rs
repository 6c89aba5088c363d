//! The built-in models train, begin with the same bits, and have evaluations without side effects.

use std::path::Path;

use crate::support::{TRAINING, alone, chain, data_for, descend, image_shape, job, model, samples, state, token_shape};
use lockstep_data::{Batch, InputKind, SampleShape, Targets};
use lockstep_models::{Context, ModelError, build_model, classified};
use tch::{Device, Tensor};

const MLP: &str = r#"{ kind = "mlp", hidden = [32, 32], outputs = 4, activation = "gelu", dropout = 0.2 }"#;
const RESNET: &str = r#"{ kind = "resnet", blocks = 1, width = 8, outputs = 4 }"#;
const GPT: &str =
    r#"{ kind = "gpt", layers = 2, heads = 2, width = 32, context = 16, vocabulary = 20, dropout = 0.1 }"#;

/// Each model with the shape of its samples, a learning rate, and the loss that it must reach.
fn all() -> [(&'static str, SampleShape, f64, f64); 3] {
    [
        (MLP, image_shape(&[1, 4, 4], 4), 0.5, 0.3),
        (RESNET, image_shape(&[3, 8, 8], 4), 0.3, 0.5),
        (GPT, token_shape(16), 1.0, 0.5),
    ]
}

#[test]
fn each_learns_a_small_problem() {
    let _alone = alone();
    for (spec, shape, lr, goal) in all() {
        let model = model(spec, &shape);
        let batch = samples(&shape, 64, 20, 3);
        tch::manual_seed(1);
        let losses: Vec<f64> = (0..250).map(|_| descend(model.as_ref(), &batch, lr)).collect();
        assert!(losses[0] > 2.0 * goal && losses[249] < goal, "{spec}: {} to {}", losses[0], losses[249]);
        let sums = model.evaluate(&batch, &Context::default()).unwrap();
        assert!(sums.right.unwrap() as f64 > 0.9 * sums.count as f64, "{spec}: {sums:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_whatever_the_generator_did_before() {
    let _alone = alone();
    for (spec, shape, ..) in all() {
        let build = |seed: &str| {
            let job = job(spec, data_for(spec), &[seed]);
            state(build_model(&job, &shape, &Path::new(".").into(), Device::Cpu).unwrap().as_ref())
        };
        tch::manual_seed(99);
        let first = build("seed=5");
        let _drawn = tch::Tensor::rand([10], tch::kind::FLOAT_CPU);
        assert_eq!(build("seed=5"), first, "{spec}");
        assert_ne!(build("seed=6"), first, "{spec}");
    }
}

#[test]
fn training_is_repeatable_and_draws_only_from_the_generator() {
    let _alone = alone();
    for (spec, shape, lr, _) in all() {
        let batch = samples(&shape, 16, 20, 3);
        let train = |seed| {
            let model = model(spec, &shape);
            tch::manual_seed(seed);
            let losses: Vec<u64> = (0..5).map(|_| descend(model.as_ref(), &batch, lr).to_bits()).collect();
            (losses, state(model.as_ref()))
        };
        assert_eq!(train(4), train(4), "{spec}");
        assert_eq!(train(4) != train(5), spec.contains("dropout"), "{spec}");
    }
}

#[test]
fn an_evaluation_leaves_no_trace() {
    let _alone = alone();
    for (spec, shape, lr, _) in all() {
        let batch = samples(&shape, 16, 20, 3);
        let run = |evaluate: bool| {
            let model = model(spec, &shape);
            tch::manual_seed(4);
            let mut seen = Vec::new();
            for _ in 0..3 {
                seen.push(descend(model.as_ref(), &batch, lr).to_bits());
                if evaluate {
                    let before = state(model.as_ref());
                    let first = model.evaluate(&batch, &Context::default()).unwrap();
                    assert_eq!(model.evaluate(&batch, &Context::default()).unwrap(), first, "{spec}");
                    assert_eq!(state(model.as_ref()), before, "{spec}");
                }
            }
            (seen, state(model.as_ref()))
        };
        assert_eq!(run(true), run(false), "{spec}");
    }
}

#[test]
fn sums_of_parts_are_the_sums_of_the_whole() {
    let _alone = alone();
    for (spec, shape, ..) in all() {
        let model = model(spec, &shape);
        let batch = samples(&shape, 12, 20, 3);
        let part = |start, length| {
            let narrow = |tensor: &tch::Tensor| tensor.narrow(0, start, length).contiguous();
            Batch::new(narrow(&batch.inputs), narrow(&batch.targets))
        };
        let evaluate = |batch: &Batch| model.evaluate(batch, &Context::default()).unwrap();
        let (whole, a, b) = (evaluate(&batch), evaluate(&part(0, 5)), evaluate(&part(5, 7)));
        assert_eq!(whole.count, a.count + b.count);
        assert_eq!(whole.count, if spec == GPT { 12 * 16 } else { 12 });
        assert_eq!(whole.right.unwrap(), a.right.unwrap() + b.right.unwrap());
        assert!((whole.loss_sum - a.loss_sum - b.loss_sum).abs() < 1e-4, "{spec}");
    }
}

#[test]
fn a_regression_counts_the_mean_over_its_values() {
    let _alone = alone();
    let shape = SampleShape { input: vec![6], kind: InputKind::Float, targets: Targets::Values { count: 3 } };
    let spec = r#"{ kind = "mlp", hidden = [32], outputs = 3, activation = "tanh" }"#;
    let job = job(spec, data_for(spec), &["batch.loss=mse"]);
    let model = build_model(&job, &shape, &Path::new(".").into(), Device::Cpu).unwrap();
    let batch = samples(&shape, 32, 0, 3);
    let losses: Vec<f64> = (0..400).map(|_| descend(model.as_ref(), &batch, 0.3)).collect();
    assert!(losses[399] < 0.05 * losses[0], "{} to {}", losses[0], losses[399]);
    let sums = model.evaluate(&batch, &Context::default()).unwrap();
    assert_eq!((sums.count, sums.right), (32, None));
    let mean = model.loss(&batch, &TRAINING).unwrap().double_value(&[]);
    assert!((sums.loss_sum / 32.0 - mean).abs() < 1e-6);
}

#[test]
fn the_description_names_every_module_with_its_parameters() {
    let _alone = alone();
    let text = model(RESNET, &image_shape(&[1, 8, 8], 4)).describe();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "resnet of depth 8: 19612 parameters");
    assert_eq!(lines[1], "  stem.conv: convolution 1 → 8, 3 × 3, stride 1, 72 parameters");
    assert_eq!(lines[3], "  stages.0: 1 blocks of 8 channels, 1184 parameters");
    assert_eq!(lines[4], "    0: basic block, 1184 parameters");
    assert_eq!(lines.last(), Some(&"  head: linear 32 → 4, 132 parameters"));
    let gpt = model(GPT, &token_shape(16));
    let total: usize = gpt.parameters().iter().map(|parameter| parameter.tensor.numel()).sum();
    assert!(gpt.describe().starts_with(&format!("gpt: {total} parameters\n")));
    assert!(gpt.describe().contains("\n    mlp: GELU between two linear layers, 8352 parameters\n      up: linear"));
}

#[test]
fn weight_decay_is_for_matrices_and_kernels() {
    let _alone = alone();
    for (spec, shape, ..) in all() {
        for parameter in model(spec, &shape).parameters() {
            let plain = parameter.name.split('.').next_back() == Some("bias") || parameter.name.contains("norm");
            assert_eq!(parameter.decay, !plain, "{}", parameter.name);
            assert!(parameter.tensor.requires_grad());
        }
    }
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    let _alone = alone();
    let refused = |spec: &str, shape: &SampleShape, overrides: &[&str]| {
        let job = job(spec, data_for(spec), overrides);
        chain(&build_model(&job, shape, &Path::new(".").into(), Device::Cpu).map(|_| ()).unwrap_err())
    };
    assert_eq!(
        refused(RESNET, &image_shape(&[5, 8, 8], 4), &[]),
        "a model of kind `resnet` takes images of H × W, or C × H × W with 1 to 3 channels, \
         but the data has samples of shape [5, 8, 8]"
    );
    assert_eq!(
        refused(MLP, &image_shape(&[8], 5), &[]),
        "the loss `cross_entropy` over 4 outputs takes classes below the number of outputs, but the data has 5 classes"
    );
    assert!(refused(MLP, &image_shape(&[8], 4), &["batch.loss=mse"]).contains("the data has 4 classes"));
    assert!(refused(GPT, &token_shape(8), &[]).contains("takes 16 tokens"));
    let values = SampleShape { input: vec![8], kind: InputKind::Float, targets: Targets::Values { count: 1 } };
    assert!(refused(MLP, &values, &["batch.loss=mse"]).contains("the data has 1 real values per sample"));
    assert!(refused(MLP, &values, &[]).contains("(real values take `batch.loss = \"mse\"`), but the data has 1 real"));
}

#[test]
fn a_batch_that_libtorch_refuses_is_an_error() {
    let _alone = alone();
    let model = model(MLP, &image_shape(&[1, 4, 4], 4));
    let wrong = samples(&image_shape(&[1, 5, 5], 4), 3, 0, 1);
    assert!(matches!(model.loss(&wrong, &TRAINING), Err(ModelError::Torch(_))));
    assert!(matches!(model.evaluate(&wrong, &Context::default()), Err(ModelError::Torch(_))));
}

#[test]
fn a_loss_outside_of_training_is_that_of_an_evaluation_and_can_be_differentiated() {
    for (spec, shape) in [(MLP, image_shape(&[1, 4, 4], 4)), (RESNET, image_shape(&[3, 8, 8], 4))] {
        let model = build_model(&job(spec, data_for(spec), &[]), &shape, &Path::new(".").into(), Device::Cpu).unwrap();
        let batch = samples(&shape, 16, 0, 4);
        // Changes the buffers of a network that has any.
        let _loss = model.loss(&batch, &TRAINING).unwrap();
        let before = state(model.as_ref());
        let loss = model.loss(&batch, &Context::default()).unwrap();
        let evaluated = model.evaluate(&batch, &Context::default()).unwrap();
        assert!((loss.double_value(&[]) - evaluated.loss_sum / 16.0).abs() < 1e-6, "{spec}");
        assert_eq!(state(model.as_ref()), before, "{spec}");
        let first = &model.parameters()[0].tensor;
        let gradient = tch::Tensor::run_backward(&[loss], &[first], false, false);
        assert!(gradient[0].abs().max().double_value(&[]) > 0.0, "{spec}");
    }
}

#[test]
fn scores_that_are_no_numbers_are_no_right_answer() {
    let scores = Tensor::from_slice(&[f32::NAN, f32::NAN, 1.0, 0.0]).view([2, 2]);
    let sums = classified(&scores, &Tensor::from_slice(&[0_i64, 0])).unwrap();
    assert_eq!((sums.right, sums.count), (Some(1), 2));
}
