//! Raw bytes and allocator statistics.

#![expect(unsafe_code, reason = "slices of tensors' memory; each block says why nobody else has it")]

use std::sync::Arc;

use lockstep_tch_ext::{Error, memory};
use memmap2::{MmapMut, MmapRaw};
use tch::{Cuda, Device, Kind, Tensor};

#[test]
fn bytes_are_the_tensors_own() {
    let mut tensor = Tensor::from_slice(&[1.0_f32, -2.5, 3.0]);
    let expected: Vec<u8> = [1.0_f32, -2.5, 3.0].iter().flat_map(|value| value.to_ne_bytes()).collect();
    // SAFETY: only this test has the tensor, and one slice of it at a time.
    assert_eq!(unsafe { memory::cpu_bytes(&tensor) }.unwrap(), expected);
    // SAFETY: as above.
    unsafe { memory::cpu_bytes_mut(&mut tensor) }.unwrap()[4..8].copy_from_slice(&7.0_f32.to_ne_bytes());
    assert_eq!(Vec::<f32>::try_from(&tensor).unwrap(), [1.0, 7.0, 3.0]);
}

#[test]
fn a_slice_of_a_tensor_gives_its_own_range() {
    let tensor = Tensor::from_slice(&[1_i32, 2, 3, 4]).view([2, 2]);
    let second = tensor.get(1);
    let expected: Vec<u8> = [3_i32, 4].iter().flat_map(|value| value.to_ne_bytes()).collect();
    assert_eq!(memory::bytes_of(&second).unwrap(), expected);
    let mut pieces = Vec::new();
    memory::each_piece(&tensor, 6, |piece| pieces.push(piece.to_vec())).unwrap();
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6, 4]);
    assert_eq!(pieces.concat()[8..], expected);
}

#[test]
fn few_elements_are_copied_whatever_the_strides_and_types() {
    let from = Tensor::arange(20, (Kind::Float, Device::Cpu));
    for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
        let (from, all) = (from.to_kind(kind), Tensor::zeros([3, 5], (kind, Device::Cpu)));
        let mut column = all.select(0, 1);
        memory::copy_few(&from.slice(0, 3, 20, 4), &mut column).unwrap();
        assert_eq!(
            Vec::<f64>::try_from(all.sum_dim_intlist(0, false, Kind::Double)).unwrap(),
            [3.0, 7.0, 11.0, 15.0, 19.0]
        );
        memory::copy_few(&from.slice(0, 0, 3, 1), &mut all.select(1, 2)).unwrap();
        assert_eq!(Vec::<f64>::try_from(all.select(1, 2).to_kind(Kind::Double)).unwrap(), [0.0, 1.0, 2.0]);
    }
    let mut other = Tensor::zeros([5], (Kind::Int64, Device::Cpu));
    memory::copy_few(&from.slice(0, 0, 5, 1), &mut other).unwrap();
    assert_eq!(Vec::<i64>::try_from(&other).unwrap(), [0, 1, 2, 3, 4], "another type is converted");
    memory::copy_few(&from.slice(0, 0, 0, 1), &mut other.slice(0, 0, 0, 1)).unwrap();
    assert!(memory::copy_few(&from, &mut other).is_err(), "another length");
}

#[test]
fn a_tensor_without_elements_gives_no_bytes() {
    let empty = Tensor::zeros([0, 3], (Kind::Float, Device::Cpu));
    assert!(memory::bytes_of(&empty).unwrap().is_empty());
    memory::each_piece(&empty, 4, |_| panic!("there is none")).unwrap();
    let filled = memory::filled(&[0, 3], Kind::Float, |bytes| -> Result<(), Error> {
        assert!(bytes.is_empty());
        Ok(())
    });
    assert_eq!(filled.unwrap().size(), [0, 3]);
}

#[test]
fn a_new_tensor_holds_what_it_is_filled_with_or_is_none() {
    let fill = |bytes: &mut [u8]| -> Result<(), Error> {
        bytes.copy_from_slice(&[[1, 0, 0, 0], [2, 0, 0, 0]].concat());
        Ok(())
    };
    let tensor = memory::filled(&[2], Kind::Int, fill).unwrap();
    assert_eq!(Vec::<i32>::try_from(tensor).unwrap(), [1, 2]);
    let refused = memory::filled(&[2], Kind::Int, |_| Err(Error::NotOnCpu));
    assert!(matches!(refused, Err(Error::NotOnCpu)));
}

#[test]
fn what_has_no_run_of_bytes_is_refused() {
    let transposed = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).tr();
    assert!(matches!(memory::bytes_of(&transposed), Err(Error::NotContiguous)));
    let sparse = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).to_sparse(None, None::<i64>, None);
    assert!(matches!(memory::bytes_of(&sparse), Err(Error::NotOnCpu)));
    assert!(matches!(memory::bytes_of(&Tensor::new()), Err(Error::NotOnCpu)));
}

#[test]
fn a_tensor_over_mapped_memory_is_that_memory_and_keeps_it() {
    let map: Arc<MmapRaw> = Arc::new(MmapMut::map_anon(4 * 5 + 3).unwrap().into());
    // SAFETY: the map is this test's own, and no reference to its bytes is made.
    let mut tensor = unsafe { memory::tensor_over(Arc::clone(&map), Kind::Float) }.unwrap();
    assert_eq!((tensor.size(), tensor.kind()), (vec![5], Kind::Float));
    assert_eq!(tensor.data_ptr().cast::<u8>().cast_const(), map.as_ptr());
    let part = tensor.narrow(0, 3, 2);
    let _ = tensor.fill_(2.5);
    drop(tensor);
    assert_eq!(Arc::strong_count(&map), 2, "the part still uses it");
    assert_eq!(Vec::<f32>::try_from(&part).unwrap(), [2.5, 2.5]);
    drop(part);
    assert_eq!(Arc::strong_count(&map), 1);
}

#[test]
fn allocator_statistics_exist_where_a_device_does() {
    let devices = usize::try_from(Cuda::device_count()).unwrap();
    assert_eq!(memory::allocator_stats(devices), None);
    for index in 0..devices {
        let before = memory::allocator_stats(index).unwrap();
        let held = Tensor::zeros([1 << 20], (Kind::Float, Device::Cuda(index)));
        let with = memory::allocator_stats(index).unwrap();
        assert!(
            with.allocated >= before.allocated + (4 << 20) && with.reserved >= with.allocated,
            "{before:?} {with:?}"
        );
        drop(held);
        let after = memory::allocator_stats(index).unwrap();
        assert!(after.allocated < with.allocated && after.peak_allocated >= with.allocated, "{with:?} {after:?}");
    }
}

#[test]
fn a_copy_says_whether_all_is_finite_whatever_the_type_and_place() {
    for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16] {
        for length in [0, 1, 31, 300_001] {
            let from = Tensor::full([length], -1.5, (kind, Device::Cpu));
            let mut into = from.zeros_like();
            assert!(memory::copy_finite(&from, Some(&mut into)).unwrap() && memory::copy_finite(&from, None).unwrap());
            assert_eq!(into, from);
            for at in [0, 30, 131_072, length - 1].into_iter().filter(|at| (0..length).contains(at)) {
                for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let _filled = from.narrow(0, at, 1).fill_(value);
                    assert!(!memory::copy_finite(&from, None).unwrap(), "{value} at {at} of {length} {kind:?}");
                    assert!(!memory::copy_finite(&from, Some(&mut into)).unwrap());
                    assert!(memory::bytes_of(&into).unwrap() == memory::bytes_of(&from).unwrap());
                    let _back = from.narrow(0, at, 1).fill_(-1.5);
                }
            }
        }
    }
    // The largest number is finite. Tensors that are not contiguous are checked, too.
    let matrix = Tensor::full([40, 30], f64::from(f32::MAX), (Kind::Float, Device::Cpu));
    let mut into = Tensor::zeros([30, 40], (Kind::Float, Device::Cpu));
    assert!(memory::copy_finite(&matrix.tr(), Some(&mut into)).unwrap());
    assert_eq!(into, matrix.tr());
    let _filled = matrix.narrow(0, 3, 1).fill_(f64::INFINITY);
    assert!(!memory::copy_finite(&matrix.tr(), Some(&mut into)).unwrap());
    assert!(!memory::copy_finite(&matrix.tr(), None).unwrap());
    let whole = Tensor::from_slice(&[i64::MAX, 0x7f80_0000]);
    assert!(memory::copy_finite(&whole, Some(&mut whole.zeros_like())).unwrap());
}

#[test]
fn pages_are_zero_and_as_many_as_asked_for() {
    for length in [0, 1, 5_000_000] {
        let pages = memory::pages(length).unwrap();
        assert_eq!((pages.size1().unwrap(), pages.kind()), (length.max(1) as i64, Kind::Uint8));
        assert!(memory::bytes_of(&pages).unwrap().iter().all(|byte| *byte == 0));
    }
}
