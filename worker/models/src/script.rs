//! A TorchScript module made in Python, with its true names, its buffers, and an evaluation that leaves no trace.

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

/// What a parameter, a score and a loss may be made of.
const FLOATS: [Kind; 3] = [Kind::Float, Kind::Double, Kind::BFloat16];

/// Loads the module at `path`, in training mode, onto `device`: from the file that was `opened` there, if it was.
///
/// A parameter that stands in the module under several names (tied weights) is one parameter, under its first name, as in
/// PyTorch. A module with state that checkpoints would not hold is refused by the attribute's name.
pub(crate) fn load(
    path: &Path,
    opened: Option<&Opened>,
    output: Output,
    objective: Objective,
    device: Device,
) -> Result<Box<dyn Model>, ModelError> {
    // Before the first module runs: otherwise a resumed process takes other kernels for its first steps.
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
                    "it is {what}, and no TorchScript module: `torch.jit.save(torch.jit.script(model), \"model.pt\")` writes one"
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
            // Frozen in Python: kept and saved, but not trained.
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
            let detail =
                format!("parameter `{name}` has elements of {found}, not 32-bit floats, 64-bit floats or bfloat16");
            return Err(refuse(detail));
        }
        // One tensor under two names has one gradient; two tensors in one memory have two.
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
    /// As they were when the module was loaded.
    attributes: Vec<(String, String)>,
    title: String,
    device: Device,
}

/// Why a module is refused, and what to do.
fn words(finding: &Finding) -> String {
    const HELD: &str = "which checkpoints do not hold: register it as a buffer (`register_buffer`) that is a `Tensor`, not an `Optional[Tensor]`";
    match finding {
        Finding::Assigns(name) => format!("`forward` assigns the attribute `{name}`, {HELD}"),
        Finding::Changes(name, operator) => format!("`forward` changes the attribute `{name}` by `{operator}`, {HELD}"),
        Finding::ChangesConstant(operator) => {
            format!("`forward` changes a tensor that is part of its code by `{operator}`, {HELD}")
        }
        Finding::AssignsParameter(name) => {
            format!("`forward` assigns the parameter `{name}`, which only the optimizer may change")
        }
        Finding::Shares(name, other) => format!(
            "`forward` assigns the buffer `{name}`, in whose memory `{other}` lies: give each its own memory (`.clone()`), or \
             change the buffer in place (`copy_`)"
        ),
        Finding::Uncounted(name, operator) => format!(
            "`forward` changes the parameter `{name}` by `{operator}`, past autograd (`.data`), and only the optimizer may change \
             it: keep values that the model changes itself in a buffer"
        ),
        Finding::Opaque(name, kind) if kind == "Generator" => format!(
            "the attribute `{name}` is a `torch.Generator`, whose state checkpoints do not hold: draw from torch's generator"
        ),
        Finding::Opaque(name, kind) => format!(
            "the attribute `{name}` is a `{kind}`, whose state nobody sees and checkpoints do not hold: keep tensors and numbers"
        ),
        Finding::Packs(name) => {
            let place = if name.is_empty() { "it".to_owned() } else { format!("its module `{name}`") };
            format!(
                "{place} is saved and loaded by code of its own (`__getstate__`, `__setstate__`), and an export might hold other \
                 values than the run: keep all state in parameters and buffers, and remove that code"
            )
        }
        Finding::Hook(name) => {
            format!("its hook `{name}` around `forward` is not run by the module itself: call it in `forward`")
        }
        Finding::Denied(operator, why) => format!("`forward` calls `{operator}`, which {why}"),
    }
}

impl Script {
    /// The one tensor that `forward` answers.
    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor, ModelError> {
        self.module.forward_one(inputs).map_err(|error| match error {
            Error::Script { path, reason } => ModelError::Script { path, detail: reason },
            other => other.into(),
        })
    }

    /// `forward(inputs)`, checked to be scores `[N, K]` for `N` targets.
    fn scores(&self, batch: &Batch) -> Result<Tensor, ModelError> {
        let scores = self.forward(&[batch.inputs.shallow_clone()])?;
        let samples = batch.inputs.size().first().copied().unwrap_or(0);
        let size = scores.size();
        let fits = FLOATS.contains(&scores.kind())
            && size.len() == 2
            && size[0] == samples
            && (self.objective.loss != LossKind::Mse || size == batch.targets.size());
        if fits {
            // libtorch has no gradient of a squared error between bfloat16 scores and targets of 32 bits.
            let widened = self.objective.loss == LossKind::Mse && scores.kind() == Kind::BFloat16;
            return Ok(if widened { scores.f_to_kind(Kind::Float)? } else { scores });
        }
        let expected = match self.objective.loss {
            LossKind::CrossEntropy => format!("floats of shape [{samples}, classes]"),
            LossKind::Mse => format!("floats of shape {:?}", batch.targets.size()),
        };
        Err(ModelError::Output { output: "logits", expected, found: format!("{:?} of shape {size:?}", scores.kind()) })
    }

    /// `forward(inputs, targets)`, checked to be a scalar.
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
            "`forward` changed {what} from `{before}` to `{after}`, and checkpoints do not hold it: register it \
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
