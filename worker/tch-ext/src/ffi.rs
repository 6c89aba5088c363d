//! The C interface of the shim, and the few conversions that every module needs.
//!
//! Every entry point returns null, or an owned text that [`check`] turns into an error and frees.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;

use tch::{Device, Tensor};

use crate::Error;

/// An `at::Tensor`, seen from here as an address only.
pub(crate) enum CTensor {}
/// An `lte_optim`.
pub(crate) enum COptim {}
/// An `lte_script`.
pub(crate) enum CScript {}
/// An `lte_store`.
pub(crate) enum CStore {}
/// A `lockstep::Group`.
pub(crate) enum CGroup {}
/// An `lte_mark`.
pub(crate) enum CMark {}

/// Takes one named tensor, and ownership of it.
pub(crate) type PushTensor = extern "C" fn(*mut c_void, *const c_char, usize, *mut CTensor);
/// Takes one named text, borrowed for the call.
pub(crate) type PushText = extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize);

/// Runs a hook's callback; null, or a text of [`lte_text_new`].
pub(crate) type HookCall = extern "C" fn(*mut c_void, *const CTensor) -> *mut c_char;
/// Frees a hook's callback.
pub(crate) type HookDrop = extern "C" fn(*mut c_void);

/// Gives back what holds a tensor's memory.
pub(crate) type HolderDrop = extern "C" fn(*mut c_void);

/// `lte_switches`.
#[repr(C)]
pub(crate) struct CSwitches {
    pub(crate) deterministic_algorithms: u8,
    pub(crate) cudnn_benchmark: u8,
    pub(crate) cudnn_deterministic: u8,
    pub(crate) tf32: u8,
    pub(crate) fill_uninitialized: u8,
    pub(crate) intra_op_threads: i32,
    pub(crate) inter_op_threads: i32,
}

/// `lte_autocast`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CAutocast {
    pub(crate) enabled: u8,
    pub(crate) dtype: i8,
}

/// `lte_allocator_stats`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CAllocatorStats {
    pub(crate) allocated: i64,
    pub(crate) reserved: i64,
    pub(crate) active: i64,
    pub(crate) peak_allocated: i64,
    pub(crate) peak_reserved: i64,
    pub(crate) retries: i64,
    pub(crate) ooms: i64,
}

/// `lte_histogram`.
#[repr(C)]
pub(crate) struct CHistogram {
    pub(crate) count: u64,
    pub(crate) zeros: u64,
    pub(crate) nans: u64,
    pub(crate) infs: u64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
    pub(crate) std: f64,
    pub(crate) bins: [u64; 2048],
}

impl CHistogram {
    pub(crate) const EMPTY: Self =
        Self { count: 0, zeros: 0, nans: 0, infs: 0, min: 0.0, max: 0.0, mean: 0.0, std: 0.0, bins: [0; 2048] };
}

/// Takes one named histogram, borrowed for the call.
pub(crate) type PushHistogram =
    extern "C" fn(*mut c_void, *const c_char, usize, bool, *const c_void, *const CHistogram);

/// `lte_optim_config`.
#[repr(C)]
pub(crate) struct COptimConfig {
    pub(crate) kind: i32,
    pub(crate) momentum: f64,
    pub(crate) dampening: f64,
    pub(crate) nesterov: u8,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
}

unsafe extern "C" {
    fn lte_text_free(text: *mut c_char);

    pub(crate) fn lte_generator_get(device: i32, out: *mut *mut CTensor) -> *mut c_char;
    pub(crate) fn lte_generator_set(device: i32, bytes: *const u8, length: usize) -> *mut c_char;
    pub(crate) fn lte_generator_seed(device: i32, seed: u64) -> *mut c_char;

    pub(crate) fn lte_determinism_apply(switches: *const CSwitches) -> *mut c_char;
    pub(crate) fn lte_leave(code: i32) -> !;
    pub(crate) fn lte_pin_torchscript_executor() -> *mut c_char;
    pub(crate) fn lte_describe(push: PushText, sink: *mut c_void) -> *mut c_char;

    pub(crate) fn lte_allocator_stats_get(device: i32, out: *mut CAllocatorStats, found: *mut i32) -> *mut c_char;
    pub(crate) fn lte_allocator_reset_peak(device: i32) -> *mut c_char;
    pub(crate) fn lte_cpu_bytes(
        tensor: *const CTensor,
        data: *mut *mut u8,
        length: *mut usize,
        kind: *mut i32,
    ) -> *mut c_char;

    pub(crate) fn lte_is_plain(tensor: *const CTensor) -> u8;
    pub(crate) fn lte_is_same(one: *const CTensor, other: *const CTensor) -> u8;
    pub(crate) fn lte_forms(tensors: *const *const CTensor, count: usize, out: *mut u64) -> *mut c_char;

    pub(crate) fn lte_float_mode_set();
    pub(crate) fn lte_float_mode_get(expected: *mut u32) -> u32;

    pub(crate) fn lte_bit_sums(tensors: *const *const CTensor, count: usize, out: *mut u64) -> *mut c_char;

    pub(crate) fn lte_histogram_of(tensor: *const CTensor, out: *mut CHistogram) -> *mut c_char;
    pub(crate) fn lte_forward_watch(most: i64) -> *mut c_char;
    pub(crate) fn lte_forward_seen(push: PushHistogram, sink: *mut c_void) -> *mut c_char;

    pub(crate) fn lte_tensor_over(
        data: *mut u8,
        length: usize,
        holder: *mut c_void,
        drop: HolderDrop,
        out: *mut *mut CTensor,
    ) -> *mut c_char;

    pub(crate) fn lte_optim_new(
        config: *const COptimConfig,
        params: *const *const CTensor,
        weight_decays: *const f64,
        count: usize,
        out: *mut *mut COptim,
    ) -> *mut c_char;
    pub(crate) fn lte_optim_free(optim: *mut COptim);
    pub(crate) fn lte_optim_step(
        optim: *mut COptim,
        grads: *const *const CTensor,
        used: *const u8,
        count: usize,
        lr: f64,
        undefined: *mut i64,
    ) -> *mut c_char;
    pub(crate) fn lte_optim_state(optim: *const COptim, push: PushTensor, sink: *mut c_void) -> *mut c_char;
    pub(crate) fn lte_optim_counts(optim: *const COptim, taken: *mut i64, out: *mut i64);
    pub(crate) fn lte_optim_reloaded(optim: *mut COptim, counts: *const i64) -> *mut c_char;

    pub(crate) fn lte_flatten_into(
        tensors: *const *const CTensor,
        lengths: *const i64,
        count: usize,
        flat: *const CTensor,
    ) -> *mut c_char;
    pub(crate) fn lte_grads_into(
        loss: *const CTensor,
        params: *const *const CTensor,
        count: usize,
        flat: *const CTensor,
        used: *mut u8,
    ) -> *mut c_char;
    pub(crate) fn lte_layer_norms(
        flat: *const CTensor,
        offsets: *const i64,
        parts: usize,
        out: *mut f64,
    ) -> *mut c_char;
    pub(crate) fn lte_add_slices(dst: *const CTensor, src: *const CTensor) -> *mut c_char;

    pub(crate) fn lte_autocast_enter(device: i32, before: *mut CAutocast) -> *mut c_char;
    pub(crate) fn lte_autocast_leave(device: i32, before: *const CAutocast) -> *mut c_char;

    pub(crate) fn lte_script_load(path: *const c_char, device: i32, out: *mut *mut CScript) -> *mut c_char;
    pub(crate) fn lte_script_load_bytes(
        bytes: *const c_char,
        size: usize,
        device: i32,
        out: *mut *mut CScript,
    ) -> *mut c_char;
    pub(crate) fn lte_script_free(script: *mut CScript);
    pub(crate) fn lte_script_parameters(script: *const CScript, push: PushTensor, sink: *mut c_void) -> *mut c_char;
    pub(crate) fn lte_script_buffers(script: *const CScript, push: PushTensor, sink: *mut c_void) -> *mut c_char;
    pub(crate) fn lte_script_forward(
        script: *mut CScript,
        inputs: *const *const CTensor,
        count: usize,
        push: PushTensor,
        sink: *mut c_void,
        refused: *mut *mut c_char,
    ) -> *mut c_char;
    pub(crate) fn lte_script_examine(script: *mut CScript, push: PushText, sink: *mut c_void) -> *mut c_char;
    pub(crate) fn lte_script_evades(script: *const CScript) -> u8;
    pub(crate) fn lte_script_gradients(out: *mut *mut c_char) -> *mut c_char;
    pub(crate) fn lte_script_attributes(script: *const CScript, push: PushText, sink: *mut c_void) -> *mut c_char;
    pub(crate) fn lte_script_train(script: *mut CScript, on: u8) -> *mut c_char;
    pub(crate) fn lte_script_to(script: *mut CScript, device: i32) -> *mut c_char;
    pub(crate) fn lte_script_save(script: *const CScript, path: *const c_char) -> *mut c_char;
    pub(crate) fn lte_script_save_wrapped(
        script: *const CScript,
        source: *const c_char,
        names: *const *const c_char,
        buffers: *const *const CTensor,
        count: usize,
        path: *const c_char,
    ) -> *mut c_char;

    pub(crate) fn lte_text_new(start: *const c_char, length: usize) -> *mut c_char;
    pub(crate) fn lte_hook_add(
        tensor: *const CTensor,
        callback: *mut c_void,
        call: HookCall,
        drop: HookDrop,
        position: *mut u32,
    ) -> *mut c_char;
    pub(crate) fn lte_hook_remove(tensor: *const CTensor, position: u32) -> *mut c_char;

    pub(crate) fn lte_stream_leave_default(device: i32) -> *mut c_char;
    pub(crate) fn lte_mark_new(device: i32, out: *mut *mut CMark) -> *mut c_char;
    pub(crate) fn lte_mark_wait(mark: *const CMark, device: i32) -> *mut c_char;
    pub(crate) fn lte_mark_free(mark: *mut CMark);

    pub(crate) fn lte_store_serve(
        host: *const c_char,
        port: u16,
        fd: i32,
        timeout_ms: i64,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_store_connect(
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_store_hash(timeout_ms: i64, out: *mut *mut CStore, failure: *mut i32) -> *mut c_char;
    pub(crate) fn lte_store_file(
        path: *const c_char,
        members: i32,
        timeout_ms: i64,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_store_prefix(
        store: *const CStore,
        prefix: *const c_char,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_store_free(store: *mut CStore);
    pub(crate) fn lte_store_set(
        store: *const CStore,
        key: *const c_char,
        value: *const u8,
        length: usize,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_store_get(
        store: *const CStore,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut u8,
        length: *mut usize,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_store_value_free(value: *mut u8);

    pub(crate) fn lte_group_gloo(
        store: *const CStore,
        rank: i32,
        size: i32,
        interface: *const c_char,
        address: *const c_char,
        timeout_ms: i64,
        out: *mut *mut CGroup,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_nccl(
        store: *const CStore,
        rank: i32,
        size: i32,
        device: i32,
        timeout_ms: i64,
        out: *mut *mut CGroup,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_free(group: *mut CGroup);
    pub(crate) fn lte_group_cut(group: *mut CGroup) -> *mut c_char;
    pub(crate) fn lte_group_all_reduce(
        group: *mut CGroup,
        tensor: *const CTensor,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_broadcast(
        group: *mut CGroup,
        tensor: *const CTensor,
        root: i32,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_all_to_all(
        group: *mut CGroup,
        output: *const CTensor,
        input: *const CTensor,
        output_lengths: *const i64,
        input_lengths: *const i64,
        count: usize,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_all_gather(
        group: *mut CGroup,
        outputs: *const *const CTensor,
        count: usize,
        input: *const CTensor,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_send(
        group: *mut CGroup,
        tensor: *const CTensor,
        peer: i32,
        tag: i32,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_recv(
        group: *mut CGroup,
        tensor: *const CTensor,
        peer: i32,
        tag: i32,
        timeout_ms: i64,
        failure: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn lte_group_barrier(group: *mut CGroup, timeout_ms: i64, failure: *mut i32) -> *mut c_char;
}

/// The text that an entry point returned, freed here; `None` for success.
pub(crate) fn take_text(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: every entry point returns null or a NUL-terminated text that it hands over.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().trim_end().to_owned();
    // SAFETY: as above; it is freed once, here, and not used afterwards.
    unsafe { lte_text_free(text) };
    Some(owned)
}

/// Turns an entry point's answer into a result.
pub(crate) fn check(text: *mut c_char) -> Result<(), Error> {
    take_text(text).map_or(Ok(()), |message| Err(Error::Torch(message)))
}

/// The address of a tensor's `at::Tensor`; good while the tensor lives.
pub(crate) fn raw(tensor: &Tensor) -> *const CTensor {
    tensor.as_ptr().cast()
}

// `Tensor` is a struct with one field, the address of its `at::Tensor`. A list of them is therefore, in memory, the
// list of addresses that the shim takes, and no step has to build one.
const _: () = assert!(size_of::<Tensor>() == size_of::<*const CTensor>());
const _: () = assert!(align_of::<Tensor>() == align_of::<*const CTensor>());

/// The addresses of the tensors of a list, without building another list; good while the list lives.
pub(crate) fn raw_list(tensors: &[Tensor]) -> *const *const CTensor {
    let list = tensors.as_ptr().cast::<*const CTensor>();
    if let Some(first) = tensors.first() {
        // SAFETY: the list is not empty, and has the size and alignment of a pointer per entry (asserted above).
        let seen = unsafe { *list };
        assert!(std::ptr::eq(seen, raw(first)), "tch changed what a tensor is made of");
    }
    list
}

/// Takes ownership of an `at::Tensor` that the shim made for us.
///
/// # Safety
/// `tensor` comes from `new at::Tensor` and nobody else frees it.
pub(crate) unsafe fn adopt(tensor: *mut CTensor) -> Tensor {
    // SAFETY: the caller's promise is the one that `from_ptr` needs.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}

/// Runs `call` with a sink for named tensors and returns what arrived in it, in order.
pub(crate) fn collect_tensors(
    call: impl FnOnce(PushTensor, *mut c_void) -> *mut c_char,
) -> Result<Vec<(String, Tensor)>, Error> {
    extern "C" fn push(sink: *mut c_void, name: *const c_char, length: usize, tensor: *mut CTensor) {
        // SAFETY: `sink` is the vector below, which nobody else touches during the call.
        let sink = unsafe { &mut *sink.cast::<Vec<(String, Tensor)>>() };
        // SAFETY: the shim passes a tensor that it made for us.
        let tensor = unsafe { adopt(tensor) };
        // SAFETY: the shim passes a name of that many bytes, which lives during the call.
        sink.push((unsafe { text(name, length) }, tensor));
    }
    let mut sink: Vec<(String, Tensor)> = Vec::new();
    check(call(push, std::ptr::from_mut(&mut sink).cast()))?;
    Ok(sink)
}

/// Runs `call` with a sink for named texts and returns what arrived in it, in order.
pub(crate) fn collect_texts(
    call: impl FnOnce(PushText, *mut c_void) -> *mut c_char,
) -> Result<Vec<(String, String)>, Error> {
    extern "C" fn push(
        sink: *mut c_void,
        name: *const c_char,
        name_length: usize,
        value: *const c_char,
        value_length: usize,
    ) {
        // SAFETY: `sink` is the vector below, which nobody else touches during the call.
        let sink = unsafe { &mut *sink.cast::<Vec<(String, String)>>() };
        // SAFETY: the shim passes texts of that many bytes, which live during the call.
        sink.push(unsafe { (text(name, name_length), text(value, value_length)) });
    }
    let mut sink: Vec<(String, String)> = Vec::new();
    check(call(push, std::ptr::from_mut(&mut sink).cast()))?;
    Ok(sink)
}

/// A copy of `length` bytes of text.
///
/// # Safety
/// `start` is null with length 0, or points to `length` readable bytes.
pub(crate) unsafe fn text(start: *const c_char, length: usize) -> String {
    if length == 0 {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// The integer by which the shim names a device: -1 for the CPU, the index of a CUDA device.
pub(crate) fn device_index(device: Device, what: &'static str) -> Result<i32, Error> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) if index < 128 => Ok(index as i32),
        Device::Cuda(_) | Device::Mps | Device::Vulkan => {
            Err(Error::NoSuchDevice { device: device_name(device), what })
        }
    }
}

/// How errors name a device: `cpu`, `cuda:0`.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

/// A path as libtorch takes it.
pub(crate) fn c_path(path: &Path) -> Result<CString, Error> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Script { path: path.to_owned(), reason: "the path holds a zero byte".to_owned() })
}
