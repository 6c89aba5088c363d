//! Wraps a module in another one that transforms its inputs and outputs.

use std::ffi::{CString, c_char};
use std::path::Path;

use tch::Tensor;

use super::{CScript, ScriptModule, file_result};
use crate::Error;
use crate::ffi::{self, CTensor};

impl ScriptModule {
    /// Writes a module in evaluation mode whose `forward` is the TorchScript code `source`. In the code `self.model` is this module, and
    /// `buffers` are attributes of `self` with their names.
    ///
    /// # Errors
    /// `Script` if the file cannot be written, or `source` does not compile.
    pub fn save_wrapped(&self, source: &str, buffers: &[(&str, Tensor)], path: &Path) -> Result<(), Error> {
        let text = |text: &str| {
            let refuse = |_| Error::Script {
                path: path.to_owned(),
                reason: "the code or a name contains a zero byte".to_owned(),
            };
            CString::new(text).map_err(refuse)
        };
        let source = text(source)?;
        let texts = buffers.iter().map(|(name, _)| text(name)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<_> = texts.iter().map(|name| name.as_ptr()).collect();
        let tensors: Vec<Tensor> = buffers.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        let c_path = ffi::c_path(path)?;
        // SAFETY: `raw` is ours; all texts are NUL-terminated, both lists have the given number of entries, and all of them live during the
        // call.
        let answer = unsafe {
            lte_script_save_wrapped(
                self.raw,
                source.as_ptr(),
                names.as_ptr(),
                ffi::raw_list(&tensors),
                tensors.len(),
                c_path.as_ptr(),
            )
        };
        file_result(answer, path)
    }
}

unsafe extern "C" {
    fn lte_script_save_wrapped(
        script: *const CScript,
        source: *const c_char,
        names: *const *const c_char,
        buffers: *const *const CTensor,
        count: usize,
        path: *const c_char,
    ) -> *mut c_char;
}
