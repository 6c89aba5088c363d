//! The state of a run as one value: parameters, buffers, optimizer state, and the number of completed steps.

use std::collections::HashMap;

use lockstep_common::job::{JobSpec, OptimizerKind};
use lockstep_models::Model;
use lockstep_tch_ext::optim::{self, Optimizer};
use tch::Tensor;

/// Name of [`State::steps`] in a manifest.
pub const STEPS: &str = lockstep_common::manifest::STEPS;

/// A tensor of the state, with its name in a manifest.
#[derive(Debug)]
pub struct Named {
    /// `model/<name>`, `buffer/<name>` or `optimizer/<state>/<name>`.
    pub name: String,
    /// Shares its storage with the model or the optimizer: writes to it change them.
    pub tensor: Tensor,
    /// The first change of the tensor in a step.
    pub changed_by: ChangedBy,
}

/// The first change of a tensor in a step. Ordered as in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangedBy {
    /// A forward pass; changes buffers.
    Forward,
    /// The beginning of the optimizer's step; changes its count of steps.
    Optimizer,
    /// The update of the parameter with this index in the model's order.
    Update(usize),
}

/// A model in training.
pub struct State {
    /// Optimizer steps completed.
    pub step: u64,
    /// The model; it owns parameters and buffers.
    pub model: Box<dyn Model>,
    /// The optimizer of the model's parameters; it owns its moments.
    pub optimizer: Optimizer,
    tensors: Vec<Named>,
}

impl State {
    /// The state before the first step: `model` as built, and a new optimizer.
    pub fn new(job: &JobSpec, model: Box<dyn Model>) -> Result<Self, lockstep_tch_ext::Error> {
        let decay = |decays: bool| if decays || job.optimizer.decay_all { job.optimizer.weight_decay } else { 0.0 };
        let parameters = model
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.tensor.shallow_clone(), decay(parameter.decay)))
            .collect();
        let optimizer = Optimizer::new(rule(job), parameters)?;
        let mut tensors = Vec::new();
        let mut places = HashMap::new();
        for (place, parameter) in model.parameters().iter().enumerate() {
            let (tensor, changed_by) = (parameter.tensor.detach(), ChangedBy::Update(place));
            places.insert(parameter.name.as_str(), changed_by);
            tensors.push(Named { name: format!("model/{}", parameter.name), tensor, changed_by });
        }
        for (name, tensor) in model.buffers() {
            let (tensor, changed_by) = (tensor.shallow_clone(), ChangedBy::Forward);
            tensors.push(Named { name: format!("buffer/{name}"), tensor, changed_by });
        }
        for (name, tensor) in optimizer.state() {
            let parameter = name.split_once('/').and_then(|(_, parameter)| places.get(parameter));
            let changed_by = parameter.copied().unwrap_or(ChangedBy::Optimizer);
            tensors.push(Named { name: format!("optimizer/{name}"), tensor, changed_by });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { step: 0, model, optimizer, tensors })
    }

    /// All tensors but [`State::steps`], sorted by name.
    pub fn tensors(&self) -> &[Named] {
        &self.tensors
    }

    /// The number of steps that each parameter took part in, in the model's order. `None` if every parameter took part in every step: then
    /// neither the state nor a checkpoint has this tensor.
    pub fn steps(&self) -> Result<Option<Named>, lockstep_tch_ext::Error> {
        let named = |tensor| Named { name: STEPS.to_owned(), tensor, changed_by: ChangedBy::Optimizer };
        Ok(self.optimizer.steps()?.map(named))
    }
}

/// The optimizer that the job names.
fn rule(job: &JobSpec) -> optim::Kind {
    let (optimizer, [beta1, beta2]) = (&job.optimizer, job.optimizer.betas);
    match optimizer.kind {
        OptimizerKind::Sgd => {
            optim::Kind::Sgd { momentum: optimizer.momentum, dampening: 0.0, nesterov: optimizer.nesterov }
        }
        OptimizerKind::Adam => optim::Kind::Adam { beta1, beta2, eps: optimizer.eps },
        OptimizerKind::Adamw => optim::Kind::AdamW { beta1, beta2, eps: optimizer.eps },
    }
}

/// libtorch's name of an element type in lower case, as manifests write it.
pub(super) fn dtype(tensor: &Tensor) -> String {
    format!("{:?}", tensor.kind()).to_lowercase()
}
