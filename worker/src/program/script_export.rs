//! Exports a TorchScript module with the trained weights as a file that Python can load; on request with the preprocessing inside.

use std::collections::BTreeMap;
use std::path::Path;

use lockstep_common::preprocessing::{Inputs, Preprocessing, Standardised, Targets};
use lockstep_tch_ext::bits::bit_sums;
use lockstep_tch_ext::script::ScriptModule;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, TchError, Tensor};

/// Why a module could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ScriptExportError {
    /// The module cannot be loaded or saved.
    #[error(transparent)]
    Module(#[from] lockstep_tch_ext::Error),
    /// The file of weights cannot be read, or a value cannot be copied into the module.
    #[error("cannot read the weights in `{path}`")]
    Weights {
        /// Path of the safetensors file.
        path: String,
        /// I/O error, format error, or an element type that is not supported.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tensors of the preprocessing cannot be created.
    #[error("cannot add the preprocessing to the module")]
    Preprocessing(#[source] TchError),
    /// The module has no tensor of this name, or one of another shape or type.
    #[error(
        "the module has no parameter or buffer `{0}` with the shape and type of the weights file: export with the module of the run"
    )]
    Unlike(String),
    /// The named tensor has other values after the written module is loaded again.
    #[error(
        "the exported module has other values in `{0}` after it is loaded: code of the module (`__getstate__`, `__setstate__`) changes \
         what is saved. Take the values from `model.safetensors`"
    )]
    Written(String),
}

/// Loads the module at `module`, sets its parameters and buffers to the values of the safetensors file `weights`, and writes it to `to`, in
/// evaluation mode. A tensor with two names may be in `weights` under one of them only. With `preprocessing`, the written module takes raw
/// inputs and returns values in the units of the targets. The written module is loaded again and compared bit for bit.
pub fn export_script(
    module: &Path,
    weights: &Path,
    to: &Path,
    preprocessing: Option<&Preprocessing>,
) -> Result<(), ScriptExportError> {
    let unreadable = |source| ScriptExportError::Weights { path: weights.display().to_string(), source };
    let values = read(weights).map_err(unreadable)?;
    let loaded = ScriptModule::load(module, Device::Cpu)?;
    let mut tensors: BTreeMap<String, Tensor> = loaded.named_parameters().into_iter().collect();
    tensors.extend(loaded.named_buffers());
    for (name, value) in values {
        let own = tensors.get_mut(&name).filter(|own| own.size() == value.size() && own.kind() == value.kind());
        let own = own.ok_or(ScriptExportError::Unlike(name))?;
        tch::no_grad(|| own.f_copy_(&value)).map_err(|source| unreadable(source.into()))?;
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

/// Reads all tensors of a safetensors file. tch's own reader supports fewer types.
fn read(path: &Path) -> Result<Vec<(String, Tensor)>, Box<dyn std::error::Error + Send + Sync>> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let kind = kind(view.dtype()).ok_or_else(|| format!("`{name}` has elements of type {}", view.dtype()))?;
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        Ok((name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?))
    };
    file.iter().map(tensor).collect()
}

/// The element types that `coord export` writes.
fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        Dtype::F8_E4M3 => Kind::Float8e4m3fn,
        Dtype::F8_E5M2 => Kind::Float8e5m2,
        Dtype::F8_E4M3FNUZ => Kind::Float8e4m3fnuz,
        Dtype::F8_E5M2FNUZ => Kind::Float8e5m2fnuz,
        Dtype::C64 => Kind::ComplexFloat,
        _ => return None,
    })
}

/// Checks that every parameter and buffer of `module` has the same type, shape and bits in the file `written`, where `prefix` precedes its
/// name.
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

/// The source of a `forward` around `self.model` that takes raw inputs, and its buffers. In the source, 6 is TorchScript's number of the
/// element type `float32`.
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
