//! Flat gradients have the same numbers as gradients tensor by tensor, and `.grad` is not changed.

use lockstep_tch_ext::{Error, fold, memory};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.to_kind(Kind::Float).reshape([-1])).unwrap()
}

#[test]
fn gradients_of_every_kind_land_in_their_ranges() {
    let transposed = Tensor::arange(6, FLOAT).view([2, 3]).tr();
    let leaves =
        [Tensor::from_slice(&[1.0_f32, 2.0]), transposed, Tensor::from_slice(&[0.5_f64]), Tensor::from(9.0_f32)];
    let leaves = leaves.map(|leaf| leaf.set_requires_grad(true));
    let loss = || leaves.iter().map(|leaf| leaf.square().sum(Kind::Float)).sum::<Tensor>();
    let flat = Tensor::full([10], -1.0, FLOAT);
    fold::grads_into(&loss(), &leaves, &flat, &mut [0; 4]).unwrap();
    assert_eq!(values(&flat), [2.0, 4.0, 0.0, 6.0, 2.0, 8.0, 4.0, 10.0, 1.0, 18.0]);

    // A flat tensor of another element type, which consists of every second element of a larger tensor.
    let wide = Tensor::full([20], -1.0, (Kind::Double, Device::Cpu)).view([10, 2]).select(1, 0);
    fold::grads_into(&loss(), &leaves, &wide, &mut [0; 4]).unwrap();
    assert_eq!(values(&wide), values(&flat));
}

#[test]
fn a_flat_tensor_of_another_length_or_shape_is_refused() {
    let leaf = [Tensor::ones([4], FLOAT).set_requires_grad(true)];
    for shape in [&[3][..], &[5], &[2, 2]] {
        let refused = fold::grads_into(&leaf[0].sum(Kind::Float), &leaf, &Tensor::zeros(shape, FLOAT), &mut [0]);
        assert!(matches!(refused, Err(Error::Torch(_))), "{shape:?}");
    }
    let flat = Tensor::zeros([4], FLOAT);
    let refused = fold::grads_into(&leaf[0].sum(Kind::Float), &leaf, &flat, &mut [0; 2]);
    assert!(matches!(refused, Err(Error::Count { .. })));
}

#[test]
fn gradients_equal_backwards_and_leave_grad_alone() {
    let model = || {
        tch::manual_seed(1);
        let make = |shape: &[i64]| Tensor::randn(shape, FLOAT).set_requires_grad(true);
        let params = vec![make(&[8, 4]), make(&[8]), make(&[3, 8]), make(&[3])];
        let hidden = Tensor::randn([5, 4], FLOAT).linear(&params[0], Some(&params[1])).tanh();
        let loss = hidden.linear(&params[2], Some(&params[3])).square().mean(Kind::Float);
        (params, loss)
    };
    let (params, loss) = model();
    loss.backward();
    let expected: Vec<u8> =
        params.iter().flat_map(|param| memory::bytes_of(&param.grad().contiguous()).unwrap()).collect();

    let (params, loss) = model();
    let flat = Tensor::full([8 * 4 + 8 + 3 * 8 + 3], f64::NAN, FLOAT);
    fold::grads_into(&loss, &params, &flat, &mut [0; 4]).unwrap();
    assert_eq!(memory::bytes_of(&flat).unwrap(), expected);
    assert!(params.iter().all(|param| !param.grad().defined()));
    assert!(!flat.requires_grad());
    // The graph has been freed; a second pass is an error, not a panic.
    assert!(matches!(fold::grads_into(&loss, &params, &flat, &mut [0; 4]), Err(Error::Torch(_))));
}

#[test]
fn a_parameter_that_is_not_used_gives_zeros() {
    let used = Tensor::ones([2], FLOAT).set_requires_grad(true);
    let unused = Tensor::ones([2], FLOAT).set_requires_grad(true);
    let flat = Tensor::full([4], -1.0, FLOAT);
    let params = [unused, used];
    let loss = || (&params[1] * 3.0).sum(Kind::Float);
    let mut used = vec![7; params.len()];
    fold::grads_into(&loss(), &params, &flat, &mut used).unwrap();
    assert_eq!(values(&flat), [0.0, 0.0, 3.0, 3.0]);
    assert_eq!(used, [0, 1]);
}

#[test]
fn norms_of_parts() {
    let flat = Tensor::from_slice(&[3.0_f32, 4.0, 0.0, 5.0, 12.0]);
    assert_eq!(fold::layer_norms(&flat, &[0, 2, 3, 5]).unwrap(), [5.0, 0.0, 13.0]);
    assert_eq!(fold::layer_norms(&flat.to_kind(Kind::BFloat16), &[0, 2, 5]).unwrap(), [5.0, 13.0]);
    assert!(fold::layer_norms(&flat, &[]).unwrap().is_empty());
    assert_eq!(fold::layer_norms(&flat, &[2, 2]).unwrap(), [0.0]);
    for bad in [&[0, 6][..], &[-1, 2], &[3, 2]] {
        assert!(matches!(fold::layer_norms(&flat, bad), Err(Error::Offsets { length: 5 })), "{bad:?}");
    }
    tch::manual_seed(5);
    let long = Tensor::randn([100_003], FLOAT);
    let ours = fold::layer_norms(&long, &[0, 100_003]).unwrap()[0];
    // The documented order, bit for bit: sixteen partial sums, which are then added one after another.
    let mut partial = [0.0_f64; 16];
    for (index, value) in values(&long).into_iter().enumerate() {
        partial[index % 16] += f64::from(value) * f64::from(value);
    }
    let sum = partial.iter().fold(0.0, |sum, lane| sum + lane);
    assert_eq!(ours.to_bits(), sum.sqrt().to_bits());
    let theirs = long.to_kind(Kind::Double).norm().double_value(&[]);
    assert!((ours - theirs).abs() < 1e-9 * theirs, "{ours} {theirs}");
}
