//! A restored generator state continues the stream bit for bit.

use lockstep_tch_ext::{Error, generator, memory};
use tch::{Device, Kind, Tensor};

fn draw(device: Device) -> Vec<u8> {
    // An odd number of normal values: the generator keeps the second value of a pair for the next call, and the state must contain it.
    let drawn = Tensor::randn([17], (Kind::Float, device)).to_device(Device::Cpu);
    memory::bytes_of(&drawn).unwrap()
}

#[test]
fn a_state_put_back_continues_the_stream() {
    for device in crate::common::devices() {
        generator::seed(device, 7).unwrap();
        draw(device);
        let state = generator::get_state(device).unwrap();
        let first = draw(device);
        let second = draw(device);
        assert_ne!(first, second, "a generator that stands still would pass everything below");
        generator::set_state(device, &state).unwrap();
        assert_eq!(draw(device), first);
        assert_eq!(draw(device), second);

        generator::seed(device, 7).unwrap();
        let seeded = draw(device);
        tch::manual_seed(7);
        assert_eq!(draw(device), seeded, "the seed is the one that `manual_seed` sets");
        generator::seed(device, 8).unwrap();
        assert_ne!(draw(device), seeded);
    }
}

#[test]
fn bytes_that_are_no_state_are_refused() {
    // Another test may change the generator at the same time, but not the length of its state.
    let state = generator::get_state(Device::Cpu).unwrap();
    for bad in [&state[..state.len() - 1], &[], &[state.clone(), vec![0]].concat()] {
        match generator::set_state(Device::Cpu, bad) {
            Err(Error::StateLength { expected, found, .. }) => {
                assert_eq!((expected, found), (state.len(), bad.len()));
            }
            other => panic!("{other:?}"),
        }
    }
    // The right length with wrong contents: libtorch rejects it with an error.
    assert!(matches!(generator::set_state(Device::Cpu, &vec![0xff; state.len()]), Err(Error::Torch(_))));
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    assert!(matches!(generator::get_state(Device::Cuda(99)), Err(Error::Torch(_))));
    assert!(matches!(generator::seed(Device::Vulkan, 1), Err(Error::NoSuchDevice { .. })));
}
