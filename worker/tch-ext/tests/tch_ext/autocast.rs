//! Autocast is on inside of a region and off outside, also after a panic.

use std::panic::catch_unwind;

use lockstep_tch_ext::{Error, autocast};
use tch::{Device, Kind, Tensor};

fn product_kind() -> Kind {
    let x = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
    x.matmul(&x).kind()
}

#[test]
fn products_are_bfloat16_inside_and_floats_outside() {
    assert_eq!(product_kind(), Kind::Float);
    assert_eq!(autocast::bf16(Device::Cpu, product_kind).unwrap(), Kind::BFloat16);
    assert_eq!(product_kind(), Kind::Float);
    let nested = autocast::bf16(Device::Cpu, || (autocast::bf16(Device::Cpu, product_kind).unwrap(), product_kind()));
    assert_eq!(nested.unwrap(), (Kind::BFloat16, Kind::BFloat16));
    assert_eq!(product_kind(), Kind::Float);
}

#[test]
fn losses_stay_floats_and_gradients_have_the_kind_of_their_leaf() {
    let x = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
    let weight = Tensor::ones([3, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let classes = Tensor::zeros([4], (Kind::Int64, Device::Cpu));
    let loss = autocast::bf16(Device::Cpu, || x.matmul(&weight).cross_entropy_for_logits(&classes)).unwrap();
    assert_eq!(loss.kind(), Kind::Float);
    assert_eq!(Tensor::run_backward(&[&loss], &[&weight], false, false)[0].kind(), Kind::Float);
}

#[test]
fn weights_are_cast_anew_in_each_region() {
    let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
    let mut weight = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let sum = |weight: &Tensor| autocast::bf16(Device::Cpu, || x.matmul(weight).double_value(&[0, 0])).unwrap();
    assert_eq!(sum(&weight), 2.0);
    let _same = tch::no_grad(|| weight.fill_(3.0));
    assert_eq!(sum(&weight), 6.0);
}

#[test]
fn a_panic_inside_ends_the_region() {
    fn broken() {
        panic!("inside");
    }
    assert!(catch_unwind(|| autocast::bf16(Device::Cpu, broken)).is_err());
    assert_eq!(product_kind(), Kind::Float);
}

#[test]
fn a_device_that_has_no_autocast_is_refused() {
    assert!(matches!(autocast::bf16(Device::Vulkan, product_kind), Err(Error::NoSuchDevice { .. })));
}
