//! Fingerprints follow their definition, and differ for different bits.

use lockstep_tch_ext::bits::bit_sums;
use tch::{Device, Kind, Tensor};

const KINDS: [Kind; 7] = [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half, Kind::Int64, Kind::Uint8, Kind::Bool];

/// The definition, computed element by element from the tensor's bytes.
fn reference(tensor: &Tensor) -> u64 {
    let tensor = tensor.contiguous();
    let bytes = lockstep_tch_ext::memory::bytes_of(&tensor).expect("it is contiguous");
    let width = tensor.kind().elt_size_in_bytes();
    let mut sum = 0_u64;
    for (index, element) in bytes.chunks(width).enumerate() {
        let mut extended = [if element[width - 1] & 0x80 == 0 { 0 } else { 0xff }; 8];
        extended[..width].copy_from_slice(element);
        let place = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = u64::from_le_bytes(extended).wrapping_add(place).wrapping_mul(0xd6e8_feb8_6659_fd93);
        sum = sum.wrapping_add(value ^ ((value as i64) >> 32) as u64);
    }
    sum
}

fn sum(tensor: &Tensor) -> u64 {
    bit_sums(std::slice::from_ref(tensor)).expect("it has bits")[0]
}

#[test]
fn every_kind_follows_the_definition_by_memory_and_by_tensor_operations() {
    tch::manual_seed(3);
    for kind in KINDS {
        for rows in [1, 7, 33] {
            let tensor = (Tensor::randn([rows, 5], (Kind::Float, Device::Cpu)) * 100).to_kind(kind);
            let expected = reference(&tensor);
            assert_eq!(sum(&tensor), expected, "{kind:?}");
            // Not contiguous, so it is summed by tensor operations, as on other devices.
            let strided = tensor.tr().contiguous().tr();
            assert!(rows == 1 || !strided.is_contiguous());
            assert_eq!(sum(&strided), expected, "{kind:?} by tensor operations");
            for device in crate::common::devices() {
                assert_eq!(sum(&tensor.to_device(device)), expected, "{kind:?} on {device:?}");
            }
        }
    }
    assert_eq!(sum(&Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))), 0);
}

#[test]
fn every_single_bit_and_every_exchange_of_elements_shows() {
    let values: Vec<f32> = (0..64).map(|index| index as f32 * 0.5 - 7.0).collect();
    let original = sum(&Tensor::from_slice(&values));
    for place in 0..values.len() {
        for bit in 0..32 {
            let mut changed = values.clone();
            changed[place] = f32::from_bits(changed[place].to_bits() ^ (1 << bit));
            assert_ne!(sum(&Tensor::from_slice(&changed)), original, "element {place}, bit {bit}");
        }
        let mut swapped = values.clone();
        swapped.swap(place, (place + 1) % values.len());
        assert_ne!(sum(&Tensor::from_slice(&swapped)), original, "elements {place} and the next");
    }
    // The sign of a zero counts, too.
    assert_ne!(sum(&Tensor::from_slice(&[0.0_f32])), sum(&Tensor::from_slice(&[-0.0_f32])));
}

#[test]
fn what_has_no_bits_is_an_error() {
    assert!(bit_sums(&[Tensor::new()]).is_err());
}
