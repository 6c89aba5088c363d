//! Distributions are equal to a count element by element, by memory and by tensor operations; and distributions of activations.

use std::collections::BTreeMap;

use lockstep_common::series::{Histogram, bin_of};
use lockstep_tch_ext::histogram::{Look, histogram_of, watch_forward};
use tch::{Device, Kind, Tensor};

fn reference(values: &[f32]) -> Histogram {
    let mut histogram = Histogram { count: values.len() as u64, ..Histogram::default() };
    let (mut bins, mut finite) = (BTreeMap::new(), Vec::new());
    for &value in values {
        if value.is_nan() {
            histogram.nans += 1;
        } else if value.is_infinite() {
            histogram.infs += 1;
        } else {
            finite.push(f64::from(value));
            if value == 0.0 || value.is_subnormal() {
                histogram.zeros += 1;
            } else {
                *bins.entry(bin_of(value)).or_insert(0) += 1;
            }
        }
    }
    let count = finite.len() as f64;
    histogram.bins = bins.into_iter().collect();
    if count > 0.0 {
        histogram.mean = finite.iter().sum::<f64>() / count;
        histogram.std = (finite.iter().map(|value| (value - histogram.mean).powi(2)).sum::<f64>() / count).sqrt();
        histogram.min = finite.iter().copied().fold(f64::INFINITY, f64::min);
        histogram.max = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    }
    histogram
}

/// All fields must be equal; mean and deviation may differ by rounding, because their order of additions is free.
fn assert_alike(found: &Histogram, expected: &Histogram, what: &str) {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs().max(expected.max.abs()));
    assert!(close(found.mean, expected.mean) && close(found.std, expected.std), "{what}: {found:?} {expected:?}");
    assert_eq!(&Histogram { mean: expected.mean, std: expected.std, ..found.clone() }, expected, "{what}");
}

#[test]
fn a_distribution_is_that_of_every_element_by_memory_and_by_tensor_operations() {
    tch::manual_seed(5);
    for (rows, columns) in [(1, 1), (3, 5), (64, 33), (130, 70)] {
        let mut tensor = Tensor::randn([rows, columns], (Kind::Float, Device::Cpu)) * 3.0 + 0.5;
        let mut values = Vec::<f32>::try_from(tensor.view([-1])).unwrap();
        for (place, value) in
            [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, f32::MAX].into_iter().enumerate()
        {
            if values.len() > 10 {
                values[place] = value;
            }
        }
        tensor = Tensor::from_slice(&values).view([rows, columns]);
        let expected = reference(&values);
        assert_alike(&histogram_of(&tensor).unwrap(), &expected, "by memory");
        let strided = tensor.tr().contiguous().tr();
        assert!(rows == 1 || !strided.is_contiguous());
        assert_alike(&histogram_of(&strided).unwrap(), &expected, "by tensor operations");
    }
    let none = histogram_of(&Tensor::zeros([0], (Kind::Float, Device::Cpu))).unwrap();
    assert_eq!(none, Histogram::default());
    let infinite = histogram_of(&Tensor::from_slice(&[f32::INFINITY])).unwrap();
    assert_eq!((infinite.count, infinite.infs, infinite.min, infinite.max), (1, 1, 0.0, 0.0));
    let half = histogram_of(&Tensor::from_slice(&[1.5_f32, -2.0]).to_kind(Kind::BFloat16)).unwrap();
    assert_alike(&half, &reference(&[1.5, -2.0]), "of another kind");
}

#[test]
fn layers_are_seen_in_order_and_once_each_and_nothing_changes() {
    tch::manual_seed(7);
    let input = Tensor::randn([8, 4], (Kind::Float, Device::Cpu));
    let weight = Tensor::randn([3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let forward = || input.linear(&weight, None::<&Tensor>).relu().gelu("none").sum(Kind::Float);
    let plain = forward();
    let (watched, layers) = watch_forward(Look::Trace, forward).unwrap();
    assert_eq!(plain.double_value(&[]).to_bits(), watched.double_value(&[]).to_bits());
    let names: Vec<&str> = layers.iter().map(|given| given.operator.as_str()).collect();
    assert_eq!(names, ["linear", "relu", "gelu"]);
    assert!(layers.iter().all(|given| given.layer && given.histogram.count == 24));
    let parameters: Vec<usize> = layers.iter().map(|given| given.parameter).collect();
    assert_eq!(parameters, [weight.data_ptr().addr(), 0, 0], "whose weight it is");
    let relu = &layers[1].histogram;
    assert!(relu.zeros > 0 && relu.min == 0.0, "a ReLU gives zeros");
    watched.backward();
    assert!(weight.grad().defined(), "its graph is whole");

    // The watch ends, also after a panic.
    let panicked = std::panic::catch_unwind(|| watch_forward(Look::Trace, || panic!("as a model does")));
    assert!(panicked.is_err());
    let (_, layers) = watch_forward(Look::Trace, || input.relu()).unwrap();
    assert_eq!(layers.len(), 1);
    let nested = watch_forward(Look::Trace, || watch_forward(Look::Trace, || ()).is_err()).unwrap();
    assert!(nested.0, "one at a time");
}

#[test]
fn of_a_large_tensor_evenly_spaced_elements_are_counted_wherever_they_lie() {
    let input = Tensor::arange(100_000, (Kind::Float, Device::Cpu)) - 50_000.0;
    for shaped in [input.view([10, 10_000]), input.view([100, 1000]).transpose(0, 1)] {
        let (_, layers) = watch_forward(Look::Layers(1000), || shaped.relu()).unwrap();
        let histogram = &layers[0].histogram;
        assert_eq!(histogram.count, 991, "every 101st");
        let share = histogram.zeros as f64 / histogram.count as f64;
        assert!((share - 0.5).abs() < 0.01 && (histogram.max - 50_000.0).abs() < 200.0, "{histogram:?}");
    }
    // A view with holes; the output of the layer has none.
    let holes = input.view([1000, 100]).narrow(1, 0, 50);
    let (_, layers) = watch_forward(Look::Layers(1000), || holes.tanh()).unwrap();
    assert!(layers[0].histogram.count <= 1000, "what is given has no holes");
}

#[test]
fn the_first_operator_of_any_kind_that_gives_a_nan_is_traced() {
    let input = Tensor::from_slice(&[-1.0_f32, 0.5, 2.0]).view([1, 3]);
    let weight = Tensor::ones([3, 3], (Kind::Float, Device::Cpu));
    let unwritten = Tensor::full([1, 3], f64::NAN, (Kind::Float, Device::Cpu));
    let forward = || {
        // A view computes nothing.
        let _views = (unwritten.view([3, 1]), unwritten.transpose(0, 1));
        // An operator whose output has infinities but no NaN is not reported, because masks have infinities.
        let mask = Tensor::full([1, 3], f64::NEG_INFINITY, (Kind::Float, Device::Cpu)).exp();
        let hidden = input.linear(&weight, None::<&Tensor>).relu();
        ((input.sqrt() + hidden + mask) * 2.0).linear(&weight, None::<&Tensor>).relu().log()
    };
    let operators = |look| {
        let (_, given) = watch_forward(look, forward).unwrap();
        given.into_iter().map(|given| (given.operator, given.layer, given.histogram.nans)).collect::<Vec<_>>()
    };
    let layer = |operator: &str, nans| (operator.to_owned(), true, nans);
    let layers = [layer("linear", 0), layer("relu", 0), layer("linear", 3), layer("relu", 3)];
    assert_eq!(operators(Look::Layers(1000)), layers);
    let mut traced = layers.to_vec();
    traced.insert(2, ("sqrt".to_owned(), false, 1));
    assert_eq!(operators(Look::Trace), traced);
}
