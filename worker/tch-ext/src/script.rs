//! TorchScript modules, with their true dotted names, their buffers, and errors instead of panics.
//!
//! Parameters and buffers are handed out as tensors that share the module's storage: what an optimizer does to them in
//! place, the next forward pass sees.

mod wrap;

use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, PushTensor, PushText};

/// Something that a module's code may do and no run repeats, found before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It assigns an attribute that is neither a buffer nor a parameter.
    Assigns(String),
    /// It assigns a parameter.
    AssignsParameter(String),
    /// It changes such an attribute in place, by this operator.
    Changes(String, String),
    /// It changes a tensor in place, by this operator, that is part of its code.
    ChangesConstant(String),
    /// It changes a parameter, by this operator, where libtorch's version counter does not count (`parameter.data`).
    Uncounted(String, String),
    /// It assigns a buffer in whose memory another tensor lies.
    Shares(String, String),
    /// An attribute of this kind has state that cannot be seen.
    Opaque(String, String),
    /// This module below it is saved and loaded by code of its own.
    Packs(String),
    /// The whole module has this hook around `forward`, and only a call from Python runs it.
    Hook(String),
    /// It calls this operator, for this reason not to be repeated.
    Denied(String, String),
}

/// What differentiates the code of modules in this process, found by trying: `autograd`, which gives the gradients of PyTorch without
/// TorchScript, or `the executor's formulas`, which give others.
///
/// # Errors
/// `Torch`.
pub fn gradients() -> Result<String, Error> {
    let mut found = std::ptr::null_mut();
    // SAFETY: `found` is a place for one text.
    ffi::check(unsafe { lte_script_gradients(&raw mut found) })?;
    Ok(ffi::take_text(found).unwrap_or_default())
}

/// A TorchScript module.
#[derive(Debug)]
pub struct ScriptModule {
    raw: *mut CScript,
    path: PathBuf,
}

// SAFETY: the C++ object is a handle to a module object that belongs to no thread; `tch` holds its own so, too.
unsafe impl Send for ScriptModule {}

impl ScriptModule {
    /// Loads a module that `torch.jit.save` wrote, with its tensors on `device`.
    ///
    /// # Errors
    /// `Script` for a file that is missing, unreadable, or no TorchScript module.
    pub fn load(path: &Path, device: Device) -> Result<Self, Error> {
        Self::load_from(path, path, device)
    }

    /// The same from the file at `from`, which everything that is said calls `path`.
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
        // SAFETY: the path is NUL-terminated and lives during the call; `raw` is a place for one address.
        let answer = unsafe { lte_script_load(c_path.as_ptr(), device, &raw mut raw) };
        file_result(answer, path)?;
        Ok(Self { raw, path: path.to_owned() })
    }

    /// The same from the contents of a file, which everything that is said calls `path`.
    ///
    /// # Errors
    /// `Script`, as [`load`](Self::load) gives it.
    pub fn load_bytes(bytes: &[u8], path: &Path, device: Device) -> Result<Self, Error> {
        let device = ffi::device_index(device, "TorchScript")?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the bytes live during the call, which reads as many of them; `raw` is a place for one address.
        let answer = unsafe { lte_script_load_bytes(bytes.as_ptr().cast(), bytes.len(), device, &raw mut raw) };
        file_result(answer, path)?;
        Ok(Self { raw, path: path.to_owned() })
    }

    /// The trainable tensors by dotted name, in the module's own order.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        // SAFETY: `raw` is ours, and `push` takes the sink that is passed with it.
        ffi::collect_tensors(|push, sink| unsafe { lte_script_parameters(self.raw, push, sink) })
            .expect("listing tensors takes nothing but memory")
    }

    /// The buffers (batch-norm statistics and the like) by dotted name, in the module's own order.
    pub fn named_buffers(&self) -> Vec<(String, Tensor)> {
        // SAFETY: as above.
        ffi::collect_tensors(|push, sink| unsafe { lte_script_buffers(self.raw, push, sink) })
            .expect("listing tensors takes nothing but memory")
    }

    /// Goes through the code of `forward` and of all that it calls. From then on [`forward`](Self::forward) copies each
    /// buffer that the code assigns back into the tensor that [`named_buffers`](Self::named_buffers) gives, and runs tasks
    /// that the code starts where it starts them. A buffer that a pass leaves with a history of gradients is detached.
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

    /// Whether the code may change what libtorch's version counter does not count, as [`examine`](Self::examine) found.
    pub fn evades(&self) -> bool {
        // SAFETY: `raw` is ours.
        unsafe { lte_script_evades(self.raw) != 0 }
    }

    /// Every attribute by dotted name, with a text that changes when the attribute does; of a parameter or buffer only when
    /// another tensor takes its place. Then the tensors that are part of the code, once [`examine`](Self::examine) has found them.
    ///
    /// # Errors
    /// `Torch`.
    pub fn attributes(&self) -> Result<Vec<(String, String)>, Error> {
        // SAFETY: as above.
        ffi::collect_texts(|push, sink| unsafe { lte_script_attributes(self.raw, push, sink) })
    }

    /// Runs the module; a tuple or list of tensors comes back flat, in order.
    ///
    /// # Errors
    /// `Torch` for what the module throws, and for an answer that holds anything but tensors; `Script` for a buffer that it
    /// assigned with another type or shape, for a tensor that it changed and nothing holds, and for a switch of libtorch that it
    /// turned and left.
    pub fn forward(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let mut refused = std::ptr::null_mut();
        // SAFETY: `raw` is ours; the list has as many entries as is said and lives during the call; `refused` is a place for
        // one text.
        let answer = ffi::collect_tensors(|push, sink| unsafe {
            lte_script_forward(self.raw, ffi::raw_list(inputs), inputs.len(), push, sink, &raw mut refused)
        });
        if let Some(reason) = ffi::take_text(refused) {
            return Err(Error::Script { path: self.path.clone(), reason });
        }
        Ok(answer?.into_iter().map(|(_, tensor)| tensor).collect())
    }

    /// As [`forward`](Self::forward), for a module that answers one tensor.
    ///
    /// # Errors
    /// As for `forward`; `Count` for another number of tensors.
    pub fn forward_one(&self, inputs: &[Tensor]) -> Result<Tensor, Error> {
        let mut answer = self.forward(inputs)?;
        match answer.pop() {
            Some(tensor) if answer.is_empty() => Ok(tensor),
            last => {
                let found = answer.len() + usize::from(last.is_some());
                Err(Error::Script {
                    path: self.path.clone(),
                    reason: format!(
                        "`forward` answers {found} tensors: let it answer one, what the job's `model.output` names"
                    ),
                })
            }
        }
    }

    /// Training mode (dropout draws, batch norm updates its statistics) or evaluation mode.
    ///
    /// # Errors
    /// `Torch`.
    pub fn train(&self, on: bool) -> Result<(), Error> {
        // SAFETY: `raw` is ours.
        ffi::check(unsafe { lte_script_train(self.raw, u8::from(on)) })
    }

    /// Writes the module, trained as it is, as a file that `torch.jit.load` reads.
    ///
    /// # Errors
    /// `Script`.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let c_path = ffi::c_path(path)?;
        // SAFETY: `raw` is ours; the path is NUL-terminated and lives during the call.
        file_result(unsafe { lte_script_save(self.raw, c_path.as_ptr()) }, path)
    }

    /// The file that the module came from.
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
