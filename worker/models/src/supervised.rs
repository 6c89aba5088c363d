//! Loss and evaluation of networks that compute scores.

use lockstep_common::job::LossKind;
use lockstep_data::Batch;
use tch::{Kind, Reduction, Tensor};

use super::parts::Parts;
use super::precision::Precision;
use super::{Context, EvalSums, Model, ModelError, Parameter};

/// A network that computes scores.
pub(crate) trait Network {
    /// Scores `[N, outputs]` for `inputs`; `N` is the number of targets.
    fn forward(&self, inputs: &Tensor, training: bool) -> Result<Tensor, ModelError>;
}

/// The loss, and the precision in which it is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Objective {
    pub(crate) loss: LossKind,
    pub(crate) precision: Precision,
}

/// A network with its tensors, and an objective over its scores.
pub(crate) struct Supervised<N> {
    pub(crate) network: N,
    pub(crate) parts: Parts,
    pub(crate) objective: Objective,
    pub(crate) title: String,
}

impl<N: Network> Model for Supervised<N> {
    fn parameters(&self) -> &[Parameter] {
        &self.parts.parameters
    }

    fn buffers(&self) -> &[(String, Tensor)] {
        &self.parts.buffers
    }

    fn loss(&self, batch: &Batch, context: &Context) -> Result<Tensor, ModelError> {
        self.objective.precision.run(|| {
            let scores = self.network.forward(&batch.inputs, context.training)?;
            loss(self.objective.loss, &scores, &batch.targets, Reduction::Mean)
        })
    }

    fn evaluate(&self, batch: &Batch, _context: &Context) -> Result<EvalSums, ModelError> {
        let evaluate = || sums(self.objective.loss, &self.network.forward(&batch.inputs, false)?, &batch.targets);
        tch::no_grad(|| self.objective.precision.run(evaluate))
    }

    fn predict(&self, batch: &Batch) -> Result<Option<Tensor>, ModelError> {
        let scores = || self.network.forward(&batch.inputs, false).map(Some);
        tch::no_grad(|| self.objective.precision.run(scores))
    }

    fn describe(&self) -> String {
        self.parts.describe(&self.title)
    }
}

/// The loss of `scores` `[N, K]` for `targets`: classes (any shape of `N` elements) or values `[N, K]`.
pub(crate) fn loss(
    kind: LossKind,
    scores: &Tensor,
    targets: &Tensor,
    reduction: Reduction,
) -> Result<Tensor, ModelError> {
    Ok(match kind {
        LossKind::CrossEntropy if targets.dim() == 1 => cross_entropy(scores, targets, reduction)?,
        LossKind::CrossEntropy => cross_entropy(scores, &targets.f_reshape(-1)?, reduction)?,
        LossKind::Mse => scores.f_mse_loss(targets, reduction)?,
    })
}

fn cross_entropy(scores: &Tensor, classes: &Tensor, reduction: Reduction) -> Result<Tensor, tch::TchError> {
    // The index to ignore is -100, which is no class, so no target is ignored.
    scores.f_cross_entropy_loss(classes, None::<&Tensor>, reduction, -100, 0.0)
}

/// The sums of an evaluation for `scores` `[N, K]` and `classes` (`Int64`, `N` elements): the cross-entropy, and the number of correct
/// classes.
pub fn classified(scores: &Tensor, classes: &Tensor) -> Result<EvalSums, ModelError> {
    sums(LossKind::CrossEntropy, scores, classes)
}

/// The sums of an evaluation for `scores`, in double precision.
pub(crate) fn sums(kind: LossKind, scores: &Tensor, targets: &Tensor) -> Result<EvalSums, ModelError> {
    let losses = loss(kind, scores, targets, Reduction::None)?.f_sum(Kind::Double)?;
    let (outputs, right) = match kind {
        LossKind::CrossEntropy => {
            // `argmax` counts NaN as the greatest, so rows with NaN are excluded.
            let answered = scores.f_isnan()?.f_any_dim(-1, false)?.f_logical_not()?;
            let hits = scores.f_argmax(-1, false)?.f_eq_tensor(&targets.f_reshape(-1)?)?;
            let hits = hits.f_logical_and(&answered)?.f_sum(Kind::Int64)?;
            (1.0, Some(hits.f_int64_value(&[])? as u64))
        }
        // The loss of a sample is the mean over its values.
        LossKind::Mse => (targets.size().last().copied().unwrap_or(1).max(1) as f64, None),
    };
    let count = (targets.numel() as f64 / outputs) as u64;
    Ok(EvalSums { loss_sum: losses.f_double_value(&[])? / outputs, right, count, metrics: Vec::new() })
}
