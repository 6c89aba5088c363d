//! TorchScript modules, with their dotted names, their buffers, and errors instead of panics.
//!
//! Parameters and buffers are tensors that share the module's storage: the next forward pass sees an optimizer's changes in place.

mod wrap;

use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, PushTensor, PushText};

/// An effect of a module's code that makes a run irreproducible. Found in the code, before the module runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// `forward` assigns this attribute, which is neither a buffer nor a parameter.
    Assigns(String),
    /// `forward` assigns this parameter.
    AssignsParameter(String),
    /// `forward` changes this attribute, which is neither a buffer nor a parameter, in place by this operator.
    Changes(String, String),
    /// `forward` changes a tensor that is part of the code (a constant), in place by this operator.
    ChangesConstant(String),
    /// `forward` changes this parameter by this operator, in a way that libtorch's version counter does not count (`parameter.data`).
    Uncounted(String, String),
    /// `forward` assigns this buffer, which shares memory with this other tensor.
    Shares(String, String),
    /// This attribute is an object of this kind, whose state cannot be read.
    Opaque(String, String),
    /// This submodule (empty: the module itself) has its own code for saving and loading.
    Packs(String),
    /// The module has this hook around `forward`, which only calls from Python run.
    Hook(String),
    /// `forward` calls this operator, which cannot be reproduced for this reason.
    Denied(String, String),
}

/// How the code of modules is differentiated in this process, found by a test: `autograd` gives the gradients of PyTorch without
/// TorchScript; `the executor's formulas` give other gradients.
///
/// # Errors
/// `Torch`.
pub fn gradients() -> Result<String, Error> {
    let mut found = std::ptr::null_mut();
    // SAFETY: `found` has room for the address of one text.
    ffi::check(unsafe { lte_script_gradients(&raw mut found) })?;
    Ok(ffi::take_text(found).unwrap_or_default())
}

/// A TorchScript module.
#[derive(Debug)]
pub struct ScriptModule {
    raw: *mut CScript,
    path: PathBuf,
}

// SAFETY: the C++ object is a handle to a module object, which belongs to no thread; `tch` makes its own `Send`, too.
unsafe impl Send for ScriptModule {}

impl ScriptModule {
    /// Loads a module that `torch.jit.save` wrote, with its tensors on `device`.
    ///
    /// # Errors
    /// `Script` if the file is missing, unreadable, or not a TorchScript module.
    pub fn load(path: &Path, device: Device) -> Result<Self, Error> {
        Self::load_from(path, path, device)
    }

    /// The same from the file at `from`, which messages call `path`.
    ///
    /// # Errors
    /// `Script`, as [`load`](Self::load) gives it.
    pub fn load_from(from: &Path, path: &Path, device: Device) -> Result<Self, Error> {
        if let Err(error) = std::fs::File::open(from) {
            return Err(Error::Script { path: path.to_owned(), reason: error.to_string() });
        }
        let device = ffi::device_index(device, "TorchScript")?;
        let c_path = ffi::c_path(from)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the path is NUL-terminated and lives during the call; `raw` has room for one address.
        let answer = unsafe { lte_script_load(c_path.as_ptr(), device, &raw mut raw) };
        file_result(answer, path)?;
        Ok(Self { raw, path: path.to_owned() })
    }

    /// The same from the contents of a file, which messages call `path`.
    ///
    /// # Errors
    /// `Script`, as [`load`](Self::load) gives it.
    pub fn load_bytes(bytes: &[u8], path: &Path, device: Device) -> Result<Self, Error> {
        let device = ffi::device_index(device, "TorchScript")?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the bytes live during the call, which reads only them; `raw` has room for one address.
        let answer = unsafe { lte_script_load_bytes(bytes.as_ptr().cast(), bytes.len(), device, &raw mut raw) };
        file_result(answer, path)?;
        Ok(Self { raw, path: path.to_owned() })
    }

    /// The parameters by dotted name, in the module's order; frozen parameters are included.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        // SAFETY: `raw` is ours, and `push` takes the sink that is passed with it.
        ffi::collect_tensors(|push, sink| unsafe { lte_script_parameters(self.raw, push, sink) })
            .expect("listing tensors takes nothing but memory")
    }

    /// The buffers (for example batch-norm statistics) by dotted name, in the module's order.
    pub fn named_buffers(&self) -> Vec<(String, Tensor)> {
        // SAFETY: as above.
        ffi::collect_tensors(|push, sink| unsafe { lte_script_buffers(self.raw, push, sink) })
            .expect("listing tensors takes nothing but memory")
    }

    /// Analyses the code of `forward` and of all functions that it calls, and returns the effects that make a run irreproducible.
    ///
    /// From then on [`forward`](Self::forward) copies each buffer that the code assigns back into the tensor of
    /// [`named_buffers`](Self::named_buffers), runs tasks at the point where the code starts them, and detaches buffers that a pass
    /// leaves with an autograd history.
    ///
    /// # Errors
    /// `Torch` for a module without `forward`.
    pub fn examine(&self) -> Result<Vec<Finding>, Error> {
        // SAFETY: `raw` is ours, and `push` takes the sink that is passed with it.
        let found = ffi::collect_texts(|push, sink| unsafe { lte_script_examine(self.raw, push, sink) })?;
        let finding = |(name, what): (String, String)| {
            let (what, detail) = what.split_once(' ').map_or((what.as_str(), ""), |(what, detail)| (what, detail));
            let detail = detail.to_owned();
            match what {
                "assigns" => Finding::Assigns(name),
                "parameter" => Finding::AssignsParameter(name),
                "changes" => Finding::Changes(name, detail),
                "constant" => Finding::ChangesConstant(detail),
                "uncounted" => Finding::Uncounted(name, detail),
                "shares" => Finding::Shares(name, detail),
                "opaque" => Finding::Opaque(name, detail),
                "packs" => Finding::Packs(name),
                "hook" => Finding::Hook(name),
                _ => Finding::Denied(name, detail),
            }
        };
        Ok(found.into_iter().map(finding).collect())
    }

    /// Whether the code may make changes that libtorch's version counters do not count, according to [`examine`](Self::examine).
    pub fn evades(&self) -> bool {
        // SAFETY: `raw` is ours.
        unsafe { lte_script_evades(self.raw) != 0 }
    }

    /// All attributes by dotted name, each with a text that changes if the attribute changes; for a parameter or buffer, only if another
    /// tensor replaces it. Then the constants of the code, if [`examine`](Self::examine) was called before.
    ///
    /// # Errors
    /// `Torch`.
    pub fn attributes(&self) -> Result<Vec<(String, String)>, Error> {
        // SAFETY: as above.
        ffi::collect_texts(|push, sink| unsafe { lte_script_attributes(self.raw, push, sink) })
    }

    /// Runs the module. Tuples and lists of tensors are flattened, in order.
    ///
    /// # Errors
    /// `Torch` for exceptions of the module, and if it returns anything but tensors. `Script` if it assigned a buffer with another type
    /// or shape, changed a tensor that is neither a parameter nor a buffer, or changed a setting of libtorch without restoring it.
    pub fn forward(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let mut refused = std::ptr::null_mut();
        // SAFETY: `raw` is ours; the list has the given number of entries and lives during the call; `refused` has room for the address of
        // one text.
        let answer = ffi::collect_tensors(|push, sink| unsafe {
            lte_script_forward(self.raw, ffi::raw_list(inputs), inputs.len(), push, sink, &raw mut refused)
        });
        if let Some(reason) = ffi::take_text(refused) {
            return Err(Error::Script { path: self.path.clone(), reason });
        }
        Ok(answer?.into_iter().map(|(_, tensor)| tensor).collect())
    }

    /// As [`forward`](Self::forward), for a module that returns one tensor.
    ///
    /// # Errors
    /// As for `forward`; `Script` also for another number of tensors.
    pub fn forward_one(&self, inputs: &[Tensor]) -> Result<Tensor, Error> {
        let mut answer = self.forward(inputs)?;
        match answer.pop() {
            Some(tensor) if answer.is_empty() => Ok(tensor),
            last => {
                let found = answer.len() + usize::from(last.is_some());
                Err(Error::Script {
                    path: self.path.clone(),
                    reason: format!(
                        "`forward` returns {found} tensors: return one, the output that the job's `model.output` names"
                    ),
                })
            }
        }
    }

    /// Sets training mode (dropout is on, batch norm updates its statistics) or evaluation mode.
    ///
    /// # Errors
    /// `Torch`.
    pub fn train(&self, on: bool) -> Result<(), Error> {
        // SAFETY: `raw` is ours.
        ffi::check(unsafe { lte_script_train(self.raw, u8::from(on)) })
    }

    /// Writes the module with its current weights to a file that `torch.jit.load` can read.
    ///
    /// # Errors
    /// `Script` if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let c_path = ffi::c_path(path)?;
        // SAFETY: `raw` is ours; the path is NUL-terminated and lives during the call.
        file_result(unsafe { lte_script_save(self.raw, c_path.as_ptr()) }, path)
    }

    /// The path of the module's file, as messages name it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScriptModule {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `lte_script_load` and is freed once, here.
        unsafe { lte_script_free(self.raw) };
    }
}

fn file_result(answer: *mut c_char, path: &Path) -> Result<(), Error> {
    match ffi::take_text(answer) {
        None => Ok(()),
        Some(message) => {
            let reason = message.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned();
            Err(Error::Script { path: path.to_owned(), reason })
        }
    }
}

/// An `lte_script`.
enum CScript {}

unsafe extern "C" {
    fn lte_script_load(path: *const c_char, device: i32, out: *mut *mut CScript) -> *mut c_char;
    fn lte_script_load_bytes(bytes: *const c_char, size: usize, device: i32, out: *mut *mut CScript) -> *mut c_char;
    fn lte_script_free(script: *mut CScript);
    fn lte_script_parameters(script: *const CScript, push: PushTensor, sink: *mut c_void) -> *mut c_char;
    fn lte_script_buffers(script: *const CScript, push: PushTensor, sink: *mut c_void) -> *mut c_char;
    fn lte_script_forward(
        script: *mut CScript,
        inputs: *const *const CTensor,
        count: usize,
        push: PushTensor,
        sink: *mut c_void,
        refused: *mut *mut c_char,
    ) -> *mut c_char;
    fn lte_script_examine(script: *mut CScript, push: PushText, sink: *mut c_void) -> *mut c_char;
    fn lte_script_evades(script: *const CScript) -> u8;
    fn lte_script_gradients(out: *mut *mut c_char) -> *mut c_char;
    fn lte_script_attributes(script: *const CScript, push: PushText, sink: *mut c_void) -> *mut c_char;
    fn lte_script_train(script: *mut CScript, on: u8) -> *mut c_char;
    fn lte_script_save(script: *const CScript, path: *const c_char) -> *mut c_char;
}
