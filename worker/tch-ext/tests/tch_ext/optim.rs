//! Optimizers have the same bits as those of PyTorch (`fused=True`, CPU), in parameters and state, after every kind of step.

use lockstep_tch_ext::optim::{Kind, Optimizer, STEPS, Update};
use lockstep_tch_ext::{Error, memory};
use tch::{Device, Tensor};

const FLOAT: (tch::Kind, Device) = (tch::Kind::Float, Device::Cpu);
const SHAPES: &[&[i64]] = &[&[64, 64], &[64], &[33, 7], &[1], &[5, 3, 2]];
const DECAYS: &[f64] = &[0.1, 0.0, 0.1, 0.0, 0.01];
const RATES: &[f64] = &[0.1, 0.05, 0.2, 0.0, 0.013, 0.1, 0.1];

/// Whether a parameter has a gradient at a step: the second one from the third step on, the third one at even steps, the last one never.
fn is_used(parameter: usize, step: usize) -> bool {
    match parameter {
        1 => step >= 2,
        2 => step.is_multiple_of(2),
        4 => false,
        _ => true,
    }
}

/// Numbers for the parameters, then for the gradients of each step. PyTorch reads the same numbers from a file.
fn numbers() -> Vec<f32> {
    let per_step: usize = SHAPES.iter().map(|shape| shape.iter().product::<i64>() as usize).sum();
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / 16_777_216.0 - 0.5) * 3.0
    };
    (0..per_step * (RATES.len() + 1)).map(|_| next()).collect()
}

/// Takes the next list of tensors from the front of `numbers`.
fn take(numbers: &mut &[f32]) -> Vec<Tensor> {
    SHAPES
        .iter()
        .map(|shape| {
            let (head, tail) = numbers.split_at(shape.iter().product::<i64>() as usize);
            *numbers = tail;
            Tensor::from_slice(head).view(*shape)
        })
        .collect()
}

fn parameters(tensors: &[Tensor]) -> Vec<(String, Tensor, f64)> {
    let parameter =
        |(index, tensor): (usize, &Tensor)| (format!("layer.{index}"), tensor.set_requires_grad(true), DECAYS[index]);
    tensors.iter().enumerate().map(parameter).collect()
}

fn bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<u8> {
    tensors.into_iter().flat_map(|tensor| memory::bytes_of(tensor).unwrap()).collect()
}

/// Makes all steps in Rust. With `swap`, a new optimizer with the saved state makes the later steps. With `sometimes`, parameters do not
/// take part in all steps.
fn run(kind: Kind, swap: bool, sometimes: bool) -> Vec<u8> {
    tch::set_num_threads(1);
    let all = numbers();
    let mut rest = all.as_slice();
    let tensors = take(&mut rest);
    let mut optimizer = Optimizer::new(kind, parameters(&tensors)).unwrap();
    for (step, rate) in RATES.iter().enumerate() {
        if swap && step == 3 {
            let mut saved: Vec<_> =
                optimizer.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
            let steps = optimizer.steps().unwrap();
            assert_eq!(steps.is_some(), sometimes, "counts are kept only where they differ from the run's");
            saved.extend(steps.map(|steps| (STEPS.to_owned(), steps)));
            optimizer = Optimizer::new(kind, parameters(&tensors)).unwrap();
            optimizer.load_state(&saved).unwrap();
        }
        let used: Vec<u8> = (0..SHAPES.len()).map(|index| u8::from(!sometimes || is_used(index, step))).collect();
        let grads = take(&mut rest);
        optimizer.step(&Update { used: Some(&used), ..Update::all(&grads, *rate) }).unwrap();
    }
    let counts = optimizer.steps().unwrap().map(|steps| Vec::<i64>::try_from(&steps).unwrap());
    assert_eq!(counts, sometimes.then(|| vec![7, 5, 4, 7, 0]));
    let state = optimizer.state();
    assert_eq!(state[0].0, "step");
    assert_eq!(state[0].1.double_value(&[]), RATES.len() as f64);
    let mut found = bytes(&tensors);
    found.extend(bytes(state[1..].iter().map(|(_, tensor)| tensor)));
    found
}

#[test]
fn every_kind_is_pytorchs() {
    let (beta1, beta2) = (0.9, 0.99);
    let kinds = [
        (Kind::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false }, "SGD(GROUPS, lr=0.1, fused=True)"),
        (
            Kind::Sgd { momentum: 0.9, dampening: 0.3, nesterov: false },
            "SGD(GROUPS, lr=0.1, momentum=0.9, dampening=0.3, fused=True)",
        ),
        (
            Kind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: true },
            "SGD(GROUPS, lr=0.1, momentum=0.9, nesterov=True, fused=True)",
        ),
        (Kind::Adam { beta1, beta2, eps: 1e-7 }, "Adam(GROUPS, lr=0.1, betas=(0.9, 0.99), eps=1e-7, fused=True)"),
        (Kind::AdamW { beta1, beta2, eps: 1e-8 }, "AdamW(GROUPS, lr=0.1, betas=(0.9, 0.99), eps=1e-8, fused=True)"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let numbers: Vec<u8> = numbers().iter().flat_map(|value| value.to_ne_bytes()).collect();
    std::fs::write(folder.path().join("numbers"), numbers).unwrap();
    std::fs::write(folder.path().join("kinds"), kinds.map(|(_, call)| call).join("\n")).unwrap();
    crate::common::python("optim.py", &[folder.path()]);
    for (line, (kind, call)) in kinds.into_iter().enumerate() {
        for (sometimes, name) in [(false, "result"), (true, "sometimes")] {
            let expected = std::fs::read(folder.path().join(format!("{name}-{line}"))).unwrap();
            assert!(run(kind, false, sometimes) == expected, "{call}: bits differ from PyTorch's {name}");
            assert!(run(kind, true, sometimes) == expected, "{call}: {name}: bits differ after the state moved");
        }
    }
}

/// libtorch's fused CPU kernel reads wrong memory for the momentum of 16-bit floats.
#[test]
fn momentum_of_16_bit_floats_is_computed_in_32_bits_and_rounded() {
    for kind in [tch::Kind::BFloat16, tch::Kind::Half] {
        let narrow = |tensor: &Tensor| tensor.to_kind(kind).to_kind(tch::Kind::Float);
        let gradient = |step: i64| (Tensor::arange(67, (kind, Device::Cpu)) / 64.0 - step as f64 / 4.0).sin();
        let sgd = Kind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false };
        let parameter = Tensor::ones([67], (kind, Device::Cpu)).set_requires_grad(true);
        let mut optimizer = Optimizer::new(sgd, vec![("w".into(), parameter.shallow_clone(), 0.0)]).unwrap();
        let (mut wanted, mut momentum) = (Tensor::ones([67], (tch::Kind::Float, Device::Cpu)), None::<Tensor>);
        for step in 0..6 {
            let gradient = gradient(step);
            // Leaves other values in freed memory.
            drop(Tensor::full([67], 1e4, (tch::Kind::Float, Device::Cpu)));
            optimizer.step(&Update::all(&[gradient.shallow_clone()], 0.125)).unwrap();
            let wide = gradient.to_kind(tch::Kind::Float);
            let whole = momentum.map_or_else(|| wide.copy(), |before| before * 0.9 + &wide);
            wanted = narrow(&(wanted - &whole * 0.125));
            momentum = Some(narrow(&whole));
        }
        let apart = (parameter.to_kind(tch::Kind::Float) - wanted).abs().max().double_value(&[]);
        assert!(apart <= 1.0 / 64.0, "{kind:?}: {apart}");
    }
}

#[test]
fn gradients_that_lie_otherwise_in_memory_give_the_same_bits() {
    let kind = Kind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let result = |transposed: bool| {
        let param = Tensor::ones([6, 4], (tch::Kind::Float, Device::Cpu)).set_requires_grad(true);
        let grad = Tensor::arange(24, (tch::Kind::Float, Device::Cpu)).view([4, 6]).tr();
        let grad = if transposed { grad } else { grad.contiguous() };
        let mut optimizer = Optimizer::new(kind, vec![("w".into(), param.shallow_clone(), 0.1)]).unwrap();
        optimizer.step(&Update::all(&[grad], 0.1)).unwrap();
        bytes([&param])
    };
    assert_eq!(result(true), result(false));
}

/// For example `nn.Parameter(weight[:, ::2])`.
#[test]
fn a_parameter_with_gaps_in_memory_is_stepped_as_one_without() {
    let result = |kind: Kind, element: tch::Kind, gaps: bool| {
        let whole = Tensor::arange(48, (element, Device::Cpu)).view([6, 8]);
        let columns = whole.slice(1, 0, 8, 2);
        let param = if gaps { columns } else { columns.contiguous() }.set_requires_grad(true);
        let mut optimizer = Optimizer::new(kind, vec![("w".into(), param.shallow_clone(), 0.1)]).unwrap();
        for step in 0..3 {
            let grad = (Tensor::arange(48, (element, Device::Cpu)).view([6, 8]) / 16.0 - f64::from(step)).sin();
            optimizer.step(&Update::all(&[grad.slice(1, 0, 8, 2)], 0.1)).unwrap();
        }
        let between = whole.slice(1, 1, 8, 2).contiguous();
        assert!(between.equal(&Tensor::arange(48, (element, Device::Cpu)).view([6, 8]).slice(1, 1, 8, 2)));
        let mut found = bytes([&param.detach().contiguous()]);
        found.extend(bytes(optimizer.state()[1..].iter().map(|(_, tensor)| tensor)));
        found
    };
    for kind in [
        Kind::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false },
        Kind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: true },
        Kind::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-8 },
        Kind::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8 },
    ] {
        for element in [tch::Kind::Float, tch::Kind::Double, tch::Kind::BFloat16] {
            assert!(result(kind, element, true) == result(kind, element, false), "{kind:?}, {element:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_changes() {
    let kind = Kind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let param = Tensor::ones([3], (tch::Kind::Float, Device::Cpu)).set_requires_grad(true);
    let mut optimizer = Optimizer::new(kind, vec![("w".into(), param.shallow_clone(), 0.0)]).unwrap();
    let before = bytes(optimizer.state().iter().map(|(_, tensor)| tensor));

    assert!(matches!(optimizer.step(&Update::all(&[], 0.1)), Err(Error::Count { expected: 1, found: 0, .. })));
    assert!(matches!(optimizer.step(&Update::all(&[Tensor::new()], 0.1)), Err(Error::NoGradient(name)) if name == "w"));
    let long = Tensor::ones([4], (tch::Kind::Float, Device::Cpu));
    assert!(matches!(optimizer.step(&Update::all(&[long.shallow_clone()], 0.1)), Err(Error::Torch(_))));

    let mut saved = optimizer.state();
    saved[1].1 = long;
    assert!(matches!(optimizer.load_state(&saved), Err(Error::Mismatch { name, .. }) if name == "exp_avg/w"));
    drop(saved.remove(1));
    assert!(matches!(optimizer.load_state(&saved), Err(Error::StateMissing(name)) if name == "exp_avg/w"));
    let mut saved = optimizer.state();
    saved.push(("exp_avg/x".into(), Tensor::new()));
    assert!(matches!(optimizer.load_state(&saved), Err(Error::StateUnknown(name)) if name == "exp_avg/x"));
    let mut saved = optimizer.state();
    saved.push((STEPS.into(), Tensor::from_slice(&[1_i64, 1])));
    assert!(matches!(optimizer.load_state(&saved), Err(Error::Mismatch { name, .. }) if name == STEPS));

    assert_eq!(bytes(optimizer.state().iter().map(|(_, tensor)| tensor)), before);
    assert_eq!(Vec::<f32>::try_from(&param.detach()).unwrap(), [1.0; 3]);
}

#[test]
fn a_step_that_waits_for_its_parameters_is_the_same_step() {
    let tensors = || -> Vec<Tensor> { (0..5).map(|index| Tensor::full([400, 400], index, FLOAT)).collect() };
    let grads: Vec<Tensor> = (0..5).map(|index| Tensor::full([400, 400], 0.3 - f64::from(index), FLOAT)).collect();
    let named = |tensors: &[Tensor]| -> Vec<(String, Tensor, f64)> {
        // Two fused calls, each with several portions.
        let decay = |index: usize| if index.is_multiple_of(2) { 0.1 } else { 0.0 };
        let named = |(index, tensor): (usize, &Tensor)| (format!("p{index}"), tensor.shallow_clone(), decay(index));
        tensors.iter().enumerate().map(named).collect()
    };
    for kind in [
        Kind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false },
        Kind::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8 },
    ] {
        let (plain, waiting) = (tensors(), tensors());
        let (mut one, mut other) =
            (Optimizer::new(kind, named(&plain)).unwrap(), Optimizer::new(kind, named(&waiting)).unwrap());
        for used in [[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]] {
            let before: Vec<Vec<u8>> = waiting.iter().map(|tensor| bytes([tensor])).collect();
            let mut asked = Vec::new();
            let update = Update { used: Some(&used), ..Update::all(&grads, 0.1) };
            one.step(&update).unwrap();
            other
                .step_when(&update, |position| {
                    assert!(bytes([&waiting[position]]) == before[position], "{position} changed before it was ready");
                    asked.push(position);
                    true
                })
                .unwrap();
            let expected: Vec<usize> = [0, 2, 4, 1, 3].into_iter().filter(|position| used[*position] != 0).collect();
            assert_eq!(asked, expected, "each once, in the order of its change");
            assert!(bytes(&plain) == bytes(&waiting));
            let state = |optimizer: &Optimizer| bytes(optimizer.state().iter().map(|(_, tensor)| tensor));
            assert!(state(&one) == state(&other));
        }
        let before = bytes([&waiting[4]]);
        other.step_when(&Update::all(&grads, 0.1), |position| position != 4).unwrap();
        assert!(bytes([&waiting[4]]) == before, "what is not ready stays as it is");
    }
}

#[test]
fn a_step_that_found_an_infinity_changes_no_tensor() {
    for kind in [
        Kind::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false },
        Kind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false },
        Kind::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-8 },
        Kind::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8 },
    ] {
        let run = |found: &[Option<f32>]| {
            let tensors: Vec<Tensor> = (0..3).map(|index| Tensor::full([50], index, FLOAT)).collect();
            let mut optimizer = Optimizer::new(kind, parameters(&tensors)).unwrap();
            for (step, found_inf) in found.iter().enumerate() {
                let found_inf = found_inf.map(Tensor::from);
                let grads: Vec<Tensor> =
                    (0..3).map(|index| Tensor::full([50], 0.3 - f64::from(index), FLOAT)).collect();
                // One parameter has its own count of steps from the second step on.
                let used = [1, u8::from(step == 0), 1];
                let update = Update { used: Some(&used), found_inf: found_inf.as_ref(), ..Update::all(&grads, 0.1) };
                optimizer.step(&update).unwrap();
            }
            let mut found = bytes(&tensors);
            found.extend(bytes(optimizer.state().iter().map(|(_, tensor)| tensor)));
            found
        };
        let two = run(&[None, None]);
        assert!(run(&[Some(0.0), Some(0.0)]) == two, "{kind:?}: the tensor alone changes nothing");
        assert!(run(&[None, None, Some(1.0)]) == two, "{kind:?}");
        assert!(run(&[None, None, Some(0.0)]) != two, "{kind:?}: a third step is one");
    }
}
