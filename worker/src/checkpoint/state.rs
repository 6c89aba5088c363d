//! All that a run resumes from, as one value: parameters, buffers, optimizer state, and the number of steps made.

use lockstep_common::job::{JobSpec, OptimizerKind};
use lockstep_models::Model;
use lockstep_tch_ext::optim::{self, Optimizer};
use tch::Tensor;

/// Name of [`State::steps`].
pub const STEPS: &str = lockstep_common::manifest::STEPS;

/// A tensor of the state under the name that it has in a manifest.
#[derive(Debug)]
pub struct Named {
    /// `model/<name>`, `buffer/<name>` or `optimizer/<state>/<name>`.
    pub name: String,
    /// Shares its storage with the model or optimizer: what is written to it is theirs.
    pub tensor: Tensor,
}

/// A model in training.
pub struct State {
    /// Optimizer steps completed.
    pub step: u64,
    /// What is trained.
    pub model: Box<dyn Model>,
    /// What changes it.
    pub optimizer: Optimizer,
    tensors: Vec<Named>,
}

impl State {
    /// The state before the first step: the model as built, an optimizer that has made none.
    pub fn new(job: &JobSpec, model: Box<dyn Model>) -> Result<Self, lockstep_tch_ext::Error> {
        let decay = |decays: bool| if decays || job.optimizer.decay_all { job.optimizer.weight_decay } else { 0.0 };
        let parameters = model
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.tensor.shallow_clone(), decay(parameter.decay)))
            .collect();
        let optimizer = Optimizer::new(rule(job), parameters)?;
        let mut tensors = Vec::new();
        for parameter in model.parameters() {
            let tensor = parameter.tensor.detach();
            tensors.push(Named { name: format!("model/{}", parameter.name), tensor });
        }
        for (name, tensor) in model.buffers() {
            tensors.push(Named { name: format!("buffer/{name}"), tensor: tensor.shallow_clone() });
        }
        for (name, tensor) in optimizer.state() {
            tensors.push(Named { name: format!("optimizer/{name}"), tensor });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { step: 0, model, optimizer, tensors })
    }

    /// Every tensor, by name, but [`State::steps`].
    pub fn tensors(&self) -> &[Named] {
        &self.tensors
    }

    /// The steps that each parameter took part in, in the model's order. None while all took part in every step, so that
    /// the state of a model whose parameters are all used has no such tensor.
    pub fn steps(&self) -> Result<Option<Named>, lockstep_tch_ext::Error> {
        Ok(self.optimizer.steps()?.map(|tensor| Named { name: STEPS.to_owned(), tensor }))
    }
}

/// The optimizer's rule, as the job says it.
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
