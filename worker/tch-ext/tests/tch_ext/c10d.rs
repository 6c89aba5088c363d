//! NCCL groups: a group of one member if there is a device, otherwise the error. All other properties of groups are tested with Gloo, in
//! `lockstep-gloo`.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use lockstep_tch_ext::c10d::{Backend, Error, ProcessGroup, Store};
use tch::{Device, Kind, Tensor};

/// Long enough for a busy machine; no test waits until it has passed.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn nccl_says_what_it_lacks() {
    let store = || Store::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), PATIENCE).unwrap();
    let devices = usize::try_from(tch::Cuda::device_count()).unwrap();
    // Also without a driver this call loads the NCCL part of the program, with the libraries that it needs.
    match ProcessGroup::new(&Backend::nccl(devices), &store(), 0, 1, PATIENCE) {
        Err(Error::Backend(message)) => assert!(message.contains(&format!("there are {devices}")), "{message}"),
        other => panic!("{other:?}"),
    }
    if devices > 0 {
        let group = ProcessGroup::new(&Backend::nccl(0), &store(), 0, 1, PATIENCE).unwrap();
        let tensor = Tensor::ones([4], (Kind::Float, Device::Cuda(0)));
        group.all_reduce(&tensor, PATIENCE).unwrap();
        assert_eq!(Vec::<f32>::try_from(tensor.to_device(Device::Cpu)).unwrap(), [1.0; 4]);
    }
}
