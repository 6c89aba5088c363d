//! Switches: descriptions show the values that were set, and an operator without a deterministic kernel fails. It is one test, because the
//! switches belong to the process.

use lockstep_tch_ext::determinism::{Switches, apply, describe, pin_torchscript_executor};
use tch::{Device, Kind, Tensor};

#[test]
fn switches_hold_and_are_described() {
    let exact = Switches {
        deterministic_algorithms: true,
        cudnn_benchmark: false,
        cudnn_deterministic: true,
        tf32: false,
        intra_op_threads: 1,
        inter_op: Some(1),
        fill_uninitialized: true,
    };
    apply(&exact).unwrap();
    pin_torchscript_executor();
    let seen = describe();
    let value = |name: &str| seen.get(name).unwrap_or_else(|| panic!("`{name}` is missing in {seen:?}")).as_str();
    assert_eq!(value("deterministic.algorithms"), "error");
    assert_eq!(value("deterministic.fill_uninitialized"), "on");
    assert_eq!(value("deterministic.cudnn"), "on");
    assert_eq!(value("cudnn.benchmark"), "off");
    assert_eq!(value("tf32.cublas"), "off");
    assert_eq!(value("tf32.cudnn"), "off");
    assert_eq!(value("matmul.float32"), "highest");
    assert_eq!(value("threads.intra_op"), "1");
    assert_eq!(value("torchscript.executor"), "simple");
    assert_eq!(value("torchscript.fuser"), "off");
    assert_eq!(value("torch.git").len(), 40);
    assert!(value("torch.version").starts_with("2.13.0"));
    assert!(value("torch.config").contains("PyTorch built with"));
    assert_ne!(value("cpu.capability"), "");
    assert_ne!(value("cpu.parallel_backend"), "");
    assert!(!seen.contains_key("describe.error"));
    assert_eq!(seen, describe(), "two looks at one process agree");

    // New memory is filled with NaN, so a read of it shows.
    let fresh = Tensor::empty([1000], (Kind::Float, Device::Cpu));
    assert_eq!(fresh.isnan().sum(Kind::Int64).int64_value(&[]), 1000);

    // `put_` without accumulation has no deterministic meaning for repeated indices.
    let refused = |on: bool| {
        apply(&Switches { deterministic_algorithms: on, ..exact }).unwrap();
        let mut target = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let index = Tensor::from_slice(&[0_i64, 0]);
        target.f_put_(&index, &Tensor::from_slice(&[1.0_f32, 2.0]), false).is_err()
    };
    assert!(refused(true));
    assert!(!refused(false));

    // Setting the same number of threads again is no error; another number is one.
    apply(&exact).unwrap();
    assert!(apply(&Switches { inter_op: Some(2), ..exact }).is_err());
    let faster = Switches { tf32: true, cudnn_benchmark: true, fill_uninitialized: false, inter_op: None, ..exact };
    apply(&faster).unwrap();
    let seen = describe();
    assert_eq!((seen["tf32.cublas"].as_str(), seen["cudnn.benchmark"].as_str()), ("on", "on"));
    assert_eq!(seen["deterministic.fill_uninitialized"], "off");
}
