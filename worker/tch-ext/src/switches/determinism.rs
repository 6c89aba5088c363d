//! The switches of libtorch that change the bits of a result: functions that set and describe them. Set them once, before the first tensor.
//!
//! Environment variables (`CUBLAS_WORKSPACE_CONFIG`, `ATEN_CPU_CAPABILITY`, `MKL_CBWR`, `ONEDNN_MAX_CPU_ISA`) must be set before the
//! process starts.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use crate::Error;
use crate::ffi::{self, PushText};

/// A value for each switch. They apply to the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// An operator without a deterministic kernel is an error.
    pub deterministic_algorithms: bool,
    /// cuDNN may try several kernels and use the fastest; another choice gives other bits.
    pub cudnn_benchmark: bool,
    /// cuDNN uses deterministic kernels only.
    pub cudnn_deterministic: bool,
    /// Matrix products and convolutions of 32-bit floats may round their inputs to TF32.
    pub tf32: bool,
    /// Threads within an operator, at least 1. The number decides how sums are divided.
    pub intra_op_threads: usize,
    /// Threads between operators; `None` leaves the number unchanged. It can be set once in a process.
    pub inter_op: Option<usize>,
    /// With deterministic algorithms, new memory is filled with NaN or the largest integer, so that reads of uninitialised memory show.
    /// Costs a pass over the memory.
    pub fill_uninitialized: bool,
}

/// Sets all switches.
///
/// # Errors
/// `Torch`, for example for another `inter_op` after its threads have started.
pub fn apply(switches: &Switches) -> Result<(), Error> {
    let threads = |count: usize| i32::try_from(count.max(1)).unwrap_or(i32::MAX);
    let raw = CSwitches {
        deterministic_algorithms: u8::from(switches.deterministic_algorithms),
        cudnn_benchmark: u8::from(switches.cudnn_benchmark),
        cudnn_deterministic: u8::from(switches.cudnn_deterministic),
        tf32: u8::from(switches.tf32),
        fill_uninitialized: u8::from(switches.fill_uninitialized),
        intra_op_threads: threads(switches.intra_op_threads),
        inter_op_threads: switches.inter_op.map_or(0, threads),
    };
    // SAFETY: the call reads the struct and keeps no reference to it.
    ffi::check(unsafe { lte_determinism_apply(&raw const raw) })
}

/// Makes TorchScript run the same kernels from the first step on: switches off the profiling executor, profiling and fusion.
///
/// To be called before a module runs: graphs that were specialised before stay specialised.
pub fn pin_torchscript_executor() {
    // SAFETY: takes nothing.
    ffi::check(unsafe { lte_pin_torchscript_executor() }).expect("libtorch's flags are plain variables");
}

/// All properties of libtorch that change the bits of a result, by name: part of the numerics fingerprint.
///
/// Processes on equal machines with equal environments and switches have equal maps. A difference names the reason to expect other bits.
/// The names are stable and defined here; the values are texts of libtorch. If libtorch fails, `describe.error` has the reason, so that
/// the map differs from a complete one.
pub fn describe() -> BTreeMap<String, String> {
    extern "C" fn push(
        sink: *mut c_void,
        name: *const c_char,
        name_length: usize,
        text: *const c_char,
        text_length: usize,
    ) {
        // SAFETY: `sink` is the map below, which nobody else uses during the call.
        let sink = unsafe { &mut *sink.cast::<BTreeMap<String, String>>() };
        // SAFETY: the shim passes texts of those lengths, which live during the call.
        let (name, text) = unsafe { (ffi::text(name, name_length), ffi::text(text, text_length)) };
        sink.insert(name, text.trim().to_owned());
    }
    let mut map = BTreeMap::new();
    // SAFETY: `push` takes the sink that is passed with it.
    let answer = unsafe { lte_describe(push, std::ptr::from_mut(&mut map).cast()) };
    if let Some(message) = ffi::take_text(answer) {
        map.insert("describe.error".to_owned(), message);
    }
    map
}

/// `lte_switches`.
#[repr(C)]
struct CSwitches {
    deterministic_algorithms: u8,
    cudnn_benchmark: u8,
    cudnn_deterministic: u8,
    tf32: u8,
    fill_uninitialized: u8,
    intra_op_threads: i32,
    inter_op_threads: i32,
}

unsafe extern "C" {
    fn lte_determinism_apply(switches: *const CSwitches) -> *mut c_char;
    fn lte_pin_torchscript_executor() -> *mut c_char;
    fn lte_describe(push: PushText, sink: *mut c_void) -> *mut c_char;
}
