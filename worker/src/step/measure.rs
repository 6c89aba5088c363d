//! Loss and gradient norm of a step. Hot.
//!
//! The host does not wait for a GPU: the GPU clips by its own norm and skips an update that is not finite, and the host reads both numbers
//! one step later, when the copy is complete. A step whose end needs the device anyway reads them at once, as every step on the CPU does.
//! All processes make the same decision.

use lockstep_tch_ext::fold;
use lockstep_tch_ext::streams::Mark;
use lockstep_tch_ext::transfers::download;
use tch::{Kind, Tensor};

use super::numbers::{Measured, OnDevice, Unread};
use super::{Run, TrainError};
use crate::observe::StepNumbers;
use crate::reduce::norm;

impl Run {
    /// Whether the end of the step that completes `step` needs its numbers or waits for the device anyway.
    fn reads_at_once(&self, step: u64) -> bool {
        let job = &self.trainer.job;
        let layers = job.report.layer_norms_every;
        !self.trainer.reads_later
            || step == self.trainer.until
            || self.fingerprints.compared
            || self.inspection.is_some()
            || (layers > 0 && step.is_multiple_of(layers))
            || job.checkpoint_due(step)
            || job.eval_due(step)
            || job.importance_due(step)
    }

    /// Loss and norm of the mean gradient, in the step that completes `step + 1`.
    pub(super) fn measure(&mut self, step: u64) -> Result<Measured, TrainError> {
        if self.reads_at_once(step + 1) {
            let loss = self.reducer.loss()?;
            self.finite("loss", step, loss)?;
            let grad_norm = norm(self.reducer.gradients())?;
            self.finite("gradient norm", step, grad_norm)?;
            return Ok(Measured::Read { loss, grad_norm });
        }
        let grad_norm = fold::norm(self.reducer.gradients())?;
        let loss = self.reducer.loss_beside().f_to_kind(Kind::Double)?.f_view([])?;
        let both = Tensor::f_stack(&[&loss, &grad_norm], 0)?;
        let found_inf = both.f_isfinite()?.f_all()?.f_logical_not()?.f_to_kind(Kind::Float)?;
        let both = download(&both)?;
        let there = Mark::new(self.trainer.device)?;
        Ok(Measured::OnDevice(OnDevice { grad_norm, found_inf, both, there }))
    }

    /// Scales the gradients down to `optimizer.clip_norm`, with the factor of `torch.nn.utils.clip_grad_norm_`; but the norm is summed in
    /// 64 bits.
    pub(super) fn clip(&mut self, measured: &Measured) -> Result<(), TrainError> {
        let Some(limit) = self.trainer.job.optimizer.clip_norm else { return Ok(()) };
        let gradients = self.reducer.gradients();
        match measured {
            Measured::Read { grad_norm, .. } => {
                let factor = limit / (grad_norm + 1e-6);
                if factor < 1.0 {
                    let _ = gradients.f_mul_scalar_(factor)?;
                }
            }
            Measured::OnDevice(OnDevice { grad_norm, .. }) => {
                // The same operations as above, so the same bits. Division by a host scalar would become multiplication by its reciprocal.
                let factor = grad_norm.f_full_like(limit)?.f_div(&grad_norm.f_add_scalar(1e-6)?)?.f_clamp_max(1.0)?;
                let _ = gradients.f_mul_(&factor.f_to_kind(gradients.kind())?)?;
            }
        }
        Ok(())
    }

    /// As [`Run::settle`], when the run ends with `error`: the error of the previous step that would have ended the run first. Other
    /// processes may be in any state, so nothing is exchanged with them.
    pub(super) fn settle_alone(&mut self, error: &TrainError) -> Option<TrainError> {
        // After a cut exchange the numbers on the device may be garbage.
        if matches!(error, TrainError::Exchange { .. }) || !self.unread.as_ref()?.measured.is_there_soon() {
            return None;
        }
        let exchange = self.exchange.take();
        let settled = self.settle();
        self.exchange = exchange;
        settled.err().filter(|earlier| matches!(earlier, TrainError::NotFinite { .. }))
    }

    /// Reads and reports loss and norm of the previous step, if they are still unread. If one is not finite, the run ends with the state
    /// from before that step, because the device skipped its update.
    pub(super) fn settle(&mut self) -> Result<(), TrainError> {
        let Some(Unread { step, measured, lr, positions, contents }) = self.unread.take() else { return Ok(()) };
        let (loss, grad_norm) = measured.read()?;
        if !(loss.is_finite() && grad_norm.is_finite()) {
            self.trainer.state.step = step - 1;
            if let Some(buffers) = &mut self.buffers {
                buffers.step_back();
            }
            self.finite("loss", step - 1, loss)?;
            self.finite("gradient norm", step - 1, grad_norm)?;
        }
        self.reporter.step(&StepNumbers { step, loss, grad_norm, lr, positions, contents }, None);
        Ok(())
    }
}
