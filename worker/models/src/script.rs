//! A TorchScript module from Python as a model: with its dotted names, its buffers, and an evaluation without side effects.

use std::path::Path;

use lockstep_common::job::{LossKind, Output};
use lockstep_data::Batch;
use lockstep_host::data::Opened;
use lockstep_tch_ext::Error;
use lockstep_tch_ext::memory::{is_plain, is_same};
use lockstep_tch_ext::script::{Finding, ScriptModule};
use tch::{Device, Kind, Reduction, Tensor};

use super::lookalike;
use super::memory::{MemoryRegion, disjoint, restorable};
use super::parts::Parts;
use super::supervised::Objective;
use super::trace::without_trace;
use super::{Context, EvalSums, Model, ModelError, Parameter, supervised};

/// The element types that parameters, scores and losses may have.
const FLOATS: [Kind; 3] = [Kind::Float, Kind::Double, Kind::BFloat16];

/// Loads the module at `path`, in training mode, onto `device`. If the file was `opened` and verified before, that open file is read.
///
/// A parameter with several names in the module (tied weights) is one parameter with its first name, as in PyTorch. A module with state
/// that checkpoints do not hold is rejected; the error names the attribute.
pub(crate) fn load(
    path: &Path,
    opened: Option<&Opened>,
    output: Output,
    objective: Objective,
    device: Device,
) -> Result<Box<dyn Model>, ModelError> {
    // Before the first module runs; otherwise a resumed process would use other kernels for its first steps.
    lockstep_tch_ext::determinism::pin_torchscript_executor();
    let loaded = match opened {
        Some(opened) => match opened.memory() {
            Some(bytes) => ScriptModule::load_bytes(bytes, path, device),
            None => ScriptModule::load_from(&opened.path(), path, device),
        },
        None => ScriptModule::load(path, device),
    };
    let module = loaded.map_err(|error| {
        let file = opened.map_or_else(|| path.to_owned(), Opened::path);
        match lookalike::of(&file) {
            Some(what) => ModelError::Script {
                path: path.to_owned(),
                detail: format!(
                    "it is {what}, not a TorchScript module: write one with `torch.jit.save(torch.jit.script(model), \"model.pt\")`"
                ),
            },
            None => error.into(),
        }
    })?;
    module.train(true)?;
    let refuse = |detail: String| ModelError::Script { path: path.to_owned(), detail };
    if let Some(finding) = module.examine()?.into_iter().next() {
        return Err(refuse(words(&finding)));
    }
    let mut parts = Parts::new();
    let mut seen: Vec<(Tensor, MemoryRegion)> = Vec::new();
    for (name, tensor) in module.named_parameters() {
        if !tensor.requires_grad() {
            // Frozen in Python: part of the state and of checkpoints, but not trained.
            let region = restorable("parameter", &name, &tensor)?;
            let known = tensor.numel() > 0 && seen.iter().any(|(_, known)| *known == region);
            if !known {
                seen.push((tensor.shallow_clone(), region));
                parts.buffers.push((name, tensor));
            }
            continue;
        }
        if !is_plain(&tensor) || !tensor.f_kind().is_ok_and(|kind| FLOATS.contains(&kind)) {
            let found = tensor.f_kind().map_or_else(|error| error.to_string(), |kind| format!("{kind:?}"));
            let detail = format!("parameter `{name}` has elements of {found}: expected float32, float64 or bfloat16");
            return Err(refuse(detail));
        }
        // One tensor with two names has one gradient; two tensors that share memory have two.
        if seen.iter().any(|(known, _)| is_same(known, &tensor)) {
            continue;
        }
        seen.push((tensor.shallow_clone(), MemoryRegion::of(&tensor)?));
        parts.module(&name, format!("tensor {:?}", tensor.size()));
        parts.parameters.push(Parameter::new(name, tensor));
    }
    if parts.parameters.is_empty() {
        return Err(refuse("it has no parameters to train".to_owned()));
    }
    disjoint(&parts.parameters)?;
    for (name, tensor) in module.named_buffers() {
        restorable("buffer", &name, &tensor)?;
        parts.buffers.push((name, tensor));
    }
    let attributes = module.attributes()?;
    let title = format!("TorchScript module `{}`", path.file_name().unwrap_or_default().display());
    Ok(Box::new(Script { module, output, objective, parts, attributes, title, device }))
}

struct Script {
    module: ScriptModule,
    output: Output,
    objective: Objective,
    parts: Parts,
    /// The module's attributes, as they were when it was loaded.
    attributes: Vec<(String, String)>,
    title: String,
    device: Device,
}

/// The message for a finding: the obstacle, and the way to remove it.
fn words(finding: &Finding) -> String {
    const HELD: &str = "which checkpoints do not hold: register it as a buffer (`register_buffer`) of type `Tensor`, not of type \
                        `Optional[Tensor]`";
    match finding {
        Finding::Assigns(name) => format!("`forward` assigns the attribute `{name}`, {HELD}"),
        Finding::Changes(name, operator) => format!("`forward` changes the attribute `{name}` by `{operator}`, {HELD}"),
        Finding::ChangesConstant(operator) => {
            format!("`forward` changes a tensor that is part of its code by `{operator}`, {HELD}")
        }
        Finding::AssignsParameter(name) => {
            format!(
                "`forward` assigns the parameter `{name}`, which only the optimizer may change: assign a buffer instead"
            )
        }
        Finding::Shares(name, other) => format!(
            "`forward` assigns the buffer `{name}`, which shares memory with `{other}`: give each its own memory (`.clone()`), or \
             change the buffer in place (`copy_`)"
        ),
        Finding::Uncounted(name, operator) => format!(
            "`forward` changes the parameter `{name}` by `{operator}`, bypassing autograd (`.data`), but only the optimizer may \
             change it: keep values that the model itself changes in a buffer"
        ),
        Finding::Opaque(name, kind) if kind == "Generator" => format!(
            "the attribute `{name}` is a `torch.Generator`, whose state checkpoints do not hold: draw from torch's default generator"
        ),
        Finding::Opaque(name, kind) => format!(
            "the attribute `{name}` is a `{kind}`, whose state cannot be read and is in no checkpoint: use tensors and numbers"
        ),
        Finding::Packs(name) => {
            let place = if name.is_empty() { "it".to_owned() } else { format!("its module `{name}`") };
            format!(
                "{place} is saved and loaded by code of its own (`__getstate__`, `__setstate__`), so an export might hold other \
                 values than the run: keep all state in parameters and buffers, and remove that code"
            )
        }
        Finding::Hook(name) => {
            format!(
                "its hook `{name}` around `forward` would not run, because only calls from Python run it: call it in `forward`"
            )
        }
        Finding::Denied(operator, why) => format!("`forward` calls `{operator}`, which {why}"),
    }
}

impl Script {
    /// Runs `forward`, and returns its one tensor.
    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor, ModelError> {
        self.module.forward_one(inputs).map_err(|error| match error {
            Error::Script { path, reason } => ModelError::Script { path, detail: reason },
            other => other.into(),
        })
    }

    /// Runs `forward(inputs)`, and checks that it returns scores `[N, K]` for `N` targets.
    fn scores(&self, batch: &Batch) -> Result<Tensor, ModelError> {
        let scores = self.forward(&[batch.inputs.shallow_clone()])?;
        let samples = batch.inputs.size().first().copied().unwrap_or(0);
        let size = scores.size();
        let fits = FLOATS.contains(&scores.kind())
            && size.len() == 2
            && size[0] == samples
            && (self.objective.loss != LossKind::Mse || size == batch.targets.size());
        if fits {
            // libtorch cannot differentiate the squared error of bfloat16 scores and 32-bit targets.
            let widened = self.objective.loss == LossKind::Mse && scores.kind() == Kind::BFloat16;
            return Ok(if widened { scores.f_to_kind(Kind::Float)? } else { scores });
        }
        let expected = match self.objective.loss {
            LossKind::CrossEntropy => format!("floats of shape [{samples}, classes]"),
            LossKind::Mse => format!("floats of shape {:?}", batch.targets.size()),
        };
        Err(ModelError::Output { output: "logits", expected, found: format!("{:?} of shape {size:?}", scores.kind()) })
    }

    /// Runs `forward(inputs, targets)`, and checks that it returns a scalar.
    fn mean_loss(&self, batch: &Batch) -> Result<Tensor, ModelError> {
        let loss = self.forward(&[batch.inputs.shallow_clone(), batch.targets.shallow_clone()])?;
        if loss.numel() == 1 && FLOATS.contains(&loss.kind()) {
            return if loss.dim() == 0 { Ok(loss) } else { Ok(loss.f_reshape([] as [i64; 0])?) };
        }
        let found = format!("{:?} of shape {:?}", loss.kind(), loss.size());
        Err(ModelError::Output { output: "loss", expected: "one float".to_owned(), found })
    }

    fn sums(&self, batch: &Batch) -> Result<EvalSums, ModelError> {
        match self.output {
            Output::Logits => supervised::sums(self.objective.loss, &self.scores(batch)?, &batch.targets),
            Output::Loss => {
                let count = batch.inputs.size().first().copied().unwrap_or(0) as u64;
                Ok(EvalSums::of_mean(self.mean_loss(batch)?.f_double_value(&[])?, count))
            }
        }
    }
}

impl Model for Script {
    fn parameters(&self) -> &[Parameter] {
        &self.parts.parameters
    }

    fn buffers(&self) -> &[(String, Tensor)] {
        &self.parts.buffers
    }

    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, ModelError> {
        let loss = || match self.output {
            Output::Logits => {
                supervised::loss(self.objective.loss, &self.scores(batch)?, &batch.targets, Reduction::Mean)
            }
            Output::Loss => self.mean_loss(batch),
        };
        if context.training {
            return self.objective.precision.run(loss);
        }
        self.module.train(false)?;
        let loss = self.objective.precision.run(loss);
        self.module.train(true)?;
        loss
    }

    fn evaluate(&self, batch: &Batch, _context: &Context) -> Result<EvalSums, ModelError> {
        without_trace(&self.parts.buffers, self.device, || {
            self.module.train(false)?;
            let sums = self.objective.precision.run(|| self.sums(batch));
            self.module.train(true)?;
            sums
        })
    }

    fn predict(&self, batch: &Batch) -> Result<Option<Tensor>, ModelError> {
        if self.output == Output::Loss {
            return Ok(None);
        }
        without_trace(&self.parts.buffers, self.device, || {
            self.module.train(false)?;
            let scores = self.objective.precision.run(|| self.scores(batch));
            self.module.train(true)?;
            scores.map(Some)
        })
    }

    fn check(&self) -> Result<(), ModelError> {
        let now = self.module.attributes()?;
        let changed = self.attributes.iter().zip(&now).find(|(before, after)| before != after);
        let Some(((name, before), (_, after))) = changed else { return Ok(()) };
        let what = if name.starts_with('(') {
            "a tensor that is part of its code".to_owned()
        } else {
            format!("the attribute `{name}`")
        };
        let detail = format!(
            "`forward` changed {what} from `{before}` to `{after}`, but checkpoints do not hold it: register it \
             as a buffer (`register_buffer`)"
        );
        Err(ModelError::Script { path: self.module.path().to_owned(), detail })
    }

    fn evades(&self) -> bool {
        self.module.evades()
    }

    fn describe(&self) -> String {
        self.parts.describe(&self.title)
    }
}
