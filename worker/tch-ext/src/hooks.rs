//! Gradient hooks: callbacks that run when the gradient of a tensor has been computed, while the backward pass continues. With them
//! communication can begin before the last gradient is computed.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// The callback of a hook; its argument is the gradient.
pub type Callback = Box<dyn FnMut(&Tensor) + Send>;

/// A registered hook. Dropping it removes the callback from the tensor.
#[derive(Debug)]
pub struct Hook {
    tensor: Tensor,
    position: u32,
}

/// Calls `callback` with the gradient of `tensor` each time that a backward pass has computed it.
///
/// The callback runs on the thread of that part of the backward pass: the caller's thread for the CPU, a thread of libtorch for a CUDA
/// device. It also runs if gradients are returned and not accumulated ([`crate::fold::grads_into`]). For a leaf that is used several
/// times it runs once, with the sum. A panic in the callback ends the backward pass with an error that has the message of the panic.
///
/// # Errors
/// `Torch` for a tensor that does not require gradients.
pub fn on_grad(tensor: &Tensor, callback: Callback) -> Result<Hook, Error> {
    // The second box gives the callback a thin address. The lock turns a nested call, or calls from two threads at once, into an error
    // instead of two exclusive borrows.
    let owned: Box<Mutex<Callback>> = Box::new(Mutex::new(callback));
    let mut position = 0;
    // SAFETY: the shim takes ownership of the box, and frees it once with `drop_callback`, also if the call fails.
    ffi::check(unsafe {
        lte_hook_add(ffi::raw(tensor), Box::into_raw(owned).cast(), call, drop_callback, &raw mut position)
    })?;
    Ok(Hook { tensor: tensor.shallow_clone(), position })
}

impl Drop for Hook {
    fn drop(&mut self) {
        // SAFETY: the position is the one that this tensor returned.
        let answer = unsafe { lte_hook_remove(ffi::raw(&self.tensor), self.position) };
        // It fails only for an unknown position.
        drop(ffi::take_text(answer));
    }
}

extern "C" fn call(callback: *mut c_void, grad: *const CTensor) -> *mut c_char {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the shim passes the box of `on_grad`, which it keeps during the call.
        let callback = unsafe { &*callback.cast::<Mutex<Callback>>() };
        // SAFETY: the shim passes a tensor that lives during the call; the clone has its own reference to it.
        let grad = unsafe { Tensor::clone_from_ptr(grad.cast_mut().cast()) };
        match callback.try_lock() {
            Ok(mut callback) => {
                callback(&grad);
                None
            }
            Err(_) => Some("a gradient hook was called while it ran, or after it had panicked".to_owned()),
        }
    }));
    let message = match outcome {
        Ok(None) => return std::ptr::null_mut(),
        Ok(Some(message)) => message,
        Err(panic) => {
            let words = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("a gradient hook panicked: {}", words.as_deref().unwrap_or("without a message"))
        }
    };
    // SAFETY: the shim copies this number of bytes.
    unsafe { lte_text_new(message.as_ptr().cast(), message.len()) }
}

extern "C" fn drop_callback(callback: *mut c_void) {
    // SAFETY: the box of `on_grad`, which the shim gives back once.
    let owned = unsafe { Box::from_raw(callback.cast::<Mutex<Callback>>()) };
    // Values that the callback owns may panic when they are dropped. The panic must not unwind into C++, and cannot be reported.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
}

/// Runs the callback of a hook; returns null, or a text of [`lte_text_new`].
type HookCall = extern "C" fn(*mut c_void, *const CTensor) -> *mut c_char;
/// Frees the callback of a hook.
type HookDrop = extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn lte_text_new(start: *const c_char, length: usize) -> *mut c_char;
    fn lte_hook_add(
        tensor: *const CTensor,
        callback: *mut c_void,
        call: HookCall,
        drop: HookDrop,
        position: *mut u32,
    ) -> *mut c_char;
    fn lte_hook_remove(tensor: *const CTensor, position: u32) -> *mut c_char;
}
