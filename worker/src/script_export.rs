//! A TorchScript module with the weights that a run gave it, as a file that Python loads again.

use std::collections::BTreeMap;
use std::path::Path;

use lockstep_tch_ext::script::ScriptModule;
use tch::{Device, TchError, Tensor};

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum ScriptExportError {
    /// The module.
    #[error(transparent)]
    Module(#[from] lockstep_tch_ext::Error),
    /// The weights.
    #[error("cannot read `{path}`")]
    Weights {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: TchError,
    },
    /// A tensor that the module has not, or has otherwise.
    #[error("tensor `{0}` of the weights does not fit the module")]
    Unlike(String),
}

/// Loads the module at `module`, sets its parameters and buffers to those of the safetensors file `weights`, and writes it
/// to `to`, in evaluation mode. A tensor that goes by two names may stand under one of them only.
pub fn export_script(module: &Path, weights: &Path, to: &Path) -> Result<(), ScriptExportError> {
    let unreadable = |source| ScriptExportError::Weights { path: weights.display().to_string(), source };
    let loaded = ScriptModule::load(module, Device::Cpu)?;
    let mut tensors: BTreeMap<String, Tensor> = loaded.named_parameters().into_iter().collect();
    tensors.extend(loaded.named_buffers());
    for (name, value) in Tensor::read_safetensors(weights).map_err(unreadable)? {
        let own = tensors.get_mut(&name).filter(|own| own.size() == value.size() && own.kind() == value.kind());
        let own = own.ok_or(ScriptExportError::Unlike(name))?;
        tch::no_grad(|| own.f_copy_(&value)).map_err(unreadable)?;
    }
    loaded.train(false)?;
    Ok(loaded.save(to)?)
}
