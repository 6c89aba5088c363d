//! The switches of libtorch that change the bits of a result: set them once, before the first tensor, and say what
//! they are.
//!
//! What only the environment can set before a process starts (`CUBLAS_WORKSPACE_CONFIG`, `ATEN_CPU_CAPABILITY`,
//! `MKL_CBWR`, `ONEDNN_MAX_CPU_ISA`) is the business of whoever starts the process.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use crate::Error;
use crate::ffi::{self, PushText};

/// One choice for every switch. They hold for the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// An operator without a deterministic kernel is an error, not a warning.
    pub deterministic_algorithms: bool,
    /// cuDNN may try kernels and keep the fastest: another choice, other bits.
    pub cudnn_benchmark: bool,
    /// cuDNN takes deterministic kernels only.
    pub cudnn_deterministic: bool,
    /// Matrix products and convolutions in 32 bits may round their inputs to TF32.
    pub tf32: bool,
    /// Threads within an operator: sums are cut by it. At least 1.
    pub intra_op_threads: usize,
    /// Threads between operators; `None` leaves the number as it is. It can be set once in a process.
    pub inter_op: Option<usize>,
    /// With deterministic algorithms, new memory is filled with NaN or the largest integer, so that reading it
    /// before writing shows. Costs a pass over memory.
    pub fill_uninitialized: bool,
}

/// Sets all switches.
///
/// # Errors
/// `Torch` when libtorch refuses, as it does for another `inter_op` once its threads run.
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

/// Makes TorchScript run the same kernels from the first step on: profiling executor, profiling and fusion off.
///
/// To be called before a module runs; a graph that was already specialised stays so.
pub fn pin_torchscript_executor() {
    // SAFETY: takes nothing.
    ffi::check(unsafe { lte_pin_torchscript_executor() }).expect("libtorch's flags are plain variables");
}

/// Everything that libtorch can tell about itself that changes the bits of a result, by name.
///
/// Two processes on one kind of machine that were started and switched alike give equal maps; what differs names the
/// reason to expect other bits. The names are ours and stable, the values libtorch's words. Should libtorch fail to
/// answer, `describe.error` says why, so that the map differs from a whole one.
pub fn describe() -> BTreeMap<String, String> {
    extern "C" fn push(
        sink: *mut c_void,
        name: *const c_char,
        name_length: usize,
        text: *const c_char,
        text_length: usize,
    ) {
        // SAFETY: `sink` is the map below, which nobody else touches during the call.
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
