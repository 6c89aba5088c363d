//! Gradient-ready hooks: a callback that runs when the gradient of a tensor has been computed, while the backward pass
//! goes on with what is left. By it communication starts before the last gradient is there.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// What a hook calls, with the gradient.
pub type Callback = Box<dyn FnMut(&Tensor) + Send>;

/// A hook in place; dropping it removes the callback from the tensor.
#[derive(Debug)]
pub struct Hook {
    tensor: Tensor,
    position: u32,
}

/// Calls `callback` with the gradient by `tensor`, each time a backward pass has computed it.
///
/// It runs on the thread that runs that part of the backward pass: the caller's for the CPU, one of libtorch's for a
/// CUDA device. It also runs where gradients are returned and not accumulated ([`crate::fold::grads_into`]). With a
/// leaf that is used several times it runs once, with the sum. A panic in it ends the backward pass with an error that
/// carries the panic's words.
///
/// # Errors
/// `Torch` for a tensor that takes no gradient.
pub fn on_grad(tensor: &Tensor, callback: Callback) -> Result<Hook, Error> {
    // A second box makes one address of the callback. The lock turns a call from within the callback, or from two
    // threads at once, into an error instead of two exclusive borrows.
    let owned: Box<Mutex<Callback>> = Box::new(Mutex::new(callback));
    let mut position = 0;
    // SAFETY: the shim takes over the box and frees it by `drop_callback`, once, whether or not it succeeds.
    ffi::check(unsafe {
        lte_hook_add(ffi::raw(tensor), Box::into_raw(owned).cast(), call, drop_callback, &raw mut position)
    })?;
    Ok(Hook { tensor: tensor.shallow_clone(), position })
}

impl Drop for Hook {
    fn drop(&mut self) {
        // SAFETY: the position is the one that this tensor gave.
        let answer = unsafe { lte_hook_remove(ffi::raw(&self.tensor), self.position) };
        // It fails only for a position that was never given.
        drop(ffi::take_text(answer));
    }
}

extern "C" fn call(callback: *mut c_void, grad: *const CTensor) -> *mut c_char {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the shim passes the box of `on_grad`, which it holds during the call.
        let callback = unsafe { &*callback.cast::<Mutex<Callback>>() };
        // SAFETY: the shim passes a tensor that lives during the call; the clone has its own share in it.
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
            format!("a gradient hook panicked: {}", words.as_deref().unwrap_or("without words"))
        }
    };
    // SAFETY: the shim copies that many bytes.
    unsafe { lte_text_new(message.as_ptr().cast(), message.len()) }
}

extern "C" fn drop_callback(callback: *mut c_void) {
    // SAFETY: the box of `on_grad`, given back once.
    let owned = unsafe { Box::from_raw(callback.cast::<Mutex<Callback>>()) };
    // What a callback owns may panic when it goes; that must not unwind into C++, and there is nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
}

/// Runs a hook's callback; null, or a text of [`lte_text_new`].
type HookCall = extern "C" fn(*mut c_void, *const CTensor) -> *mut c_char;
/// Frees a hook's callback.
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
