//! Gloo as a back end of process groups: CPU tensors over TCP between the processes of one machine.
//!
//! It is the twin of NCCL by which groups are tested without a GPU. Only tests link it: what trains CPU tensors is the mesh.
#![expect(unsafe_code, reason = "it brings an entry point in C++; each block states what makes it sound")]

use std::ffi::c_char;

use lockstep_tch_ext::c10d::{Backend, CGroup, CStore};
use tch::Device;

/// CPU tensors, over TCP on the loopback interface; neither authenticated nor encrypted.
pub fn gloo() -> Backend {
    // SAFETY: the entry point is made as those of the shim are, with the shim's own headers.
    unsafe { Backend::of(Device::Cpu, lte_group_gloo) }
}

unsafe extern "C" {
    fn lte_group_gloo(
        store: *const CStore,
        rank: i32,
        size: i32,
        device: i32,
        timeout_ms: i64,
        out: *mut *mut CGroup,
        failure: *mut i32,
    ) -> *mut c_char;
}
