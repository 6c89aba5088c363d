//! Gloo as a back end of process groups: CPU tensors over TCP between the processes of one machine.
//!
//! With it, process groups are tested without a GPU, in place of NCCL. Only tests link it: in training, CPU tensors go through the mesh.
#![expect(unsafe_code, reason = "it calls a C++ entry point; each block states what makes it sound")]

use std::ffi::c_char;

use lockstep_tch_ext::c10d::{Backend, CGroup, CStore};
use tch::Device;

/// The back end for CPU tensors, over TCP on the loopback interface. It has no authentication and no encryption.
pub fn gloo() -> Backend {
    // SAFETY: the entry point is written like those of the shim, with the shim's headers.
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
