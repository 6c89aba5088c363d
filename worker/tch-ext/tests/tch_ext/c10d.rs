//! NCCL groups: of one member where there is a device, and a reason where there is none. All else of groups is tested with Gloo, in
//! `lockstep-gloo`.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use lockstep_tch_ext::c10d::{Backend, Error, ProcessGroup, Store};
use tch::{Device, Kind, Tensor};

/// Long enough for a busy machine; nothing here waits for it to pass.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn nccl_says_what_it_lacks() {
    let store = || Store::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), PATIENCE).unwrap();
    let devices = usize::try_from(tch::Cuda::device_count()).unwrap();
    // Also without a driver the part that knows NCCL is loaded for this, with all that it needs of libtorch.
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
