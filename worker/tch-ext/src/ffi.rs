//! Helpers for calls into the shim. Each module declares the entry points that it calls.
//!
//! An entry point returns null for success, or an owned text that [`check`] turns into an error and frees.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;

use tch::{Device, Tensor};

use crate::Error;

/// An `at::Tensor`, of which Rust only has the address.
pub(crate) enum CTensor {}

/// A callback that takes one named tensor, with its ownership.
pub(crate) type PushTensor = extern "C" fn(*mut c_void, *const c_char, usize, *mut CTensor);
/// A callback that takes one named text, borrowed for the call.
pub(crate) type PushText = extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize);

unsafe extern "C" {
    fn lte_text_free(text: *mut c_char);
}

/// Copies and frees the text that an entry point returned; `None` for success.
pub(crate) fn take_text(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: every entry point returns null, or a NUL-terminated text whose ownership it passes on.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().trim_end().to_owned();
    // SAFETY: as above; it is freed once, here, and not used afterwards.
    unsafe { lte_text_free(text) };
    Some(owned)
}

/// Turns the text of an entry point into a result.
pub(crate) fn check(text: *mut c_char) -> Result<(), Error> {
    take_text(text).map_or(Ok(()), |message| Err(Error::Torch(message)))
}

/// The address of a tensor's `at::Tensor`; valid while the tensor lives.
pub(crate) fn raw(tensor: &Tensor) -> *const CTensor {
    tensor.as_ptr().cast()
}

// `Tensor` is a struct with one field, the address of its `at::Tensor`. So a list of tensors has the memory layout of the list of
// addresses that the shim takes, and no step has to build one.
const _: () = assert!(size_of::<Tensor>() == size_of::<*const CTensor>());
const _: () = assert!(align_of::<Tensor>() == align_of::<*const CTensor>());

/// The addresses of the tensors of a list, without a new list; valid while the list lives.
pub(crate) fn raw_list(tensors: &[Tensor]) -> *const *const CTensor {
    let list = tensors.as_ptr().cast::<*const CTensor>();
    if let Some(first) = tensors.first() {
        // SAFETY: the list is not empty, and has the size and alignment of a pointer per entry (asserted above).
        let seen = unsafe { *list };
        assert!(std::ptr::eq(seen, raw(first)), "tch changed the layout of `Tensor`");
    }
    list
}

/// Takes ownership of an `at::Tensor` that the shim created.
///
/// # Safety
/// `tensor` must come from `new at::Tensor`, and nobody else may free it.
pub(crate) unsafe fn adopt(tensor: *mut CTensor) -> Tensor {
    // SAFETY: the caller promises what `from_ptr` needs.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}

/// The tensor that `call` creates and stores at the address that it gets.
pub(crate) fn made(call: impl FnOnce(*mut *mut CTensor) -> *mut c_char) -> Result<Tensor, Error> {
    let mut tensor = std::ptr::null_mut();
    check(call(&raw mut tensor))?;
    // SAFETY: the shim has just created it, and has no other reference to it.
    Ok(unsafe { adopt(tensor) })
}

/// Runs `call` with a sink for named tensors, and returns the tensors in the order of their arrival.
pub(crate) fn collect_tensors(
    call: impl FnOnce(PushTensor, *mut c_void) -> *mut c_char,
) -> Result<Vec<(String, Tensor)>, Error> {
    extern "C" fn push(sink: *mut c_void, name: *const c_char, length: usize, tensor: *mut CTensor) {
        // SAFETY: `sink` is the vector below, which nobody else touches during the call.
        let sink = unsafe { &mut *sink.cast::<Vec<(String, Tensor)>>() };
        // SAFETY: the shim passes a tensor with its ownership.
        let tensor = unsafe { adopt(tensor) };
        // SAFETY: the shim passes a name of that many bytes, which lives during the call.
        sink.push((unsafe { text(name, length) }, tensor));
    }
    let mut sink: Vec<(String, Tensor)> = Vec::new();
    check(call(push, std::ptr::from_mut(&mut sink).cast()))?;
    Ok(sink)
}

/// Runs `call` with a sink for named texts, and returns the texts in the order of their arrival.
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

/// The shim's number of a device: -1 for the CPU, otherwise the index of a CUDA device.
pub(crate) fn device_index(device: Device, what: &'static str) -> Result<i32, Error> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) if index < 128 => Ok(index as i32),
        Device::Cuda(_) | Device::Mps | Device::Vulkan => {
            Err(Error::NoSuchDevice { device: device_name(device), what })
        }
    }
}

/// The name of a device in errors: `cpu`, `cuda:0`.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

/// A path as a C string.
pub(crate) fn c_path(path: &Path) -> Result<CString, Error> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Script { path: path.to_owned(), reason: "the path contains a zero byte".to_owned() })
}
