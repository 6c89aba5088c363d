//! A TorchScript module with the weights that a run gave it, as a file that Python loads again; on request with the
//! preprocessing inside.

use std::collections::BTreeMap;
use std::path::Path;

use lockstep_common::preprocessing::{Inputs, Preprocessing, Standardised, Targets};
use lockstep_tch_ext::bits::bit_sums;
use lockstep_tch_ext::script::ScriptModule;
use tch::{Device, Kind, TchError, Tensor};

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
    /// The preprocessing.
    #[error("cannot put the preprocessing into the module")]
    Preprocessing(#[source] TchError),
    /// A tensor that the module has not, or has otherwise.
    #[error("tensor `{0}` of the weights does not fit the module")]
    Unlike(String),
    /// What was written has other values when it is loaded.
    #[error(
        "the written module has another `{0}` when it is loaded: code of the module's own (`__getstate__`, `__setstate__`) changes what \
         is saved, so take the values from `model.safetensors`"
    )]
    Written(String),
}

/// Loads the module at `module`, sets its parameters and buffers to those of the safetensors file `weights`, and writes it
/// to `to`, in evaluation mode. A tensor that goes by two names may stand under one of them only. With `preprocessing`, what is
/// written takes raw inputs, and answers in the units of the targets. What is written is loaded again and compared, bit for bit.
pub fn export_script(
    module: &Path,
    weights: &Path,
    to: &Path,
    preprocessing: Option<&Preprocessing>,
) -> Result<(), ScriptExportError> {
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
    let Some(preprocessing) = preprocessing else {
        loaded.save(to)?;
        return compare(&loaded, "", to);
    };
    let (source, buffers) = around(preprocessing).map_err(ScriptExportError::Preprocessing)?;
    loaded.save_wrapped(&source, &buffers, to)?;
    compare(&loaded, "model.", to)
}

/// That every parameter and buffer of `module` has the same type, shape and bits in the file `written`, where its name begins with
/// `prefix`.
fn compare(module: &ScriptModule, prefix: &str, written: &Path) -> Result<(), ScriptExportError> {
    let other = ScriptModule::load(written, Device::Cpu)?;
    let mut found: BTreeMap<String, Tensor> = other.named_parameters().into_iter().collect();
    found.extend(other.named_buffers());
    for (name, own) in module.named_parameters().into_iter().chain(module.named_buffers()) {
        let same = match found.get(&format!("{prefix}{name}")) {
            Some(other) if other.size() == own.size() && other.f_kind().ok() == own.f_kind().ok() => {
                let sums = bit_sums(&[own.shallow_clone(), other.shallow_clone()])?;
                sums[0] == sums[1]
            }
            _ => false,
        };
        if !same {
            return Err(ScriptExportError::Written(name));
        }
    }
    Ok(())
}

/// Buffers of a module by name.
type Buffers = Vec<(&'static str, Tensor)>;

/// The source of a `forward` around `self.model` that takes raw inputs, and its buffers. In it 6 is the element type of 32-bit
/// floats, as TorchScript writes it.
fn around(preprocessing: &Preprocessing) -> Result<(String, Buffers), TchError> {
    let tensor = |columns: &[Standardised], of: fn(&Standardised) -> f64| {
        let values: Vec<f64> = columns.iter().map(of).collect();
        Tensor::f_from_slice(&values)?.f_to_kind(Kind::Double)
    };
    let mut buffers = Vec::new();
    let mut moments = |names: [&'static str; 2], columns: &[Standardised]| -> Result<(), TchError> {
        buffers.push((names[0], tensor(columns, |column| column.mean)?));
        buffers.push((names[1], tensor(columns, |column| column.deviation)?));
        Ok(())
    };
    let inputs = match &preprocessing.inputs {
        Inputs::Columns(columns) => {
            moments(["mean", "deviation"], columns)?;
            "((inputs - self.mean) / self.deviation).to(6)".to_owned()
        }
        Inputs::Pixels { divisor, subtracted, .. } => format!("inputs.to(6).div({divisor:?}).sub({subtracted:?})"),
        Inputs::Values { .. } | Inputs::Tokens { .. } => "inputs".to_owned(),
    };
    let answer = match &preprocessing.targets {
        Targets::Standardised(column) => {
            moments(["target_mean", "target_deviation"], std::slice::from_ref(column))?;
            format!("self.model.forward({inputs}) * self.target_deviation + self.target_mean")
        }
        Targets::Classes { .. } | Targets::Values { .. } | Targets::NextToken => {
            format!("self.model.forward({inputs})")
        }
    };
    Ok((format!("def forward(self, inputs):\n    return {answer}\n"), buffers))
}
