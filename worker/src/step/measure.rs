//! Measuring a step. A device that computes beside the host is not waited for: it clips by its own norm and leaves out an update that is
//! not finite, and both numbers are read a step later, when they are long there. Hot.
//!
//! Where a step's end needs the device anyway, they are read at once, as on the CPU always. All processes decide alike.

use lockstep_tch_ext::fold;
use lockstep_tch_ext::streams::Mark;
use lockstep_tch_ext::transfers::download;
use tch::{Kind, Tensor};

use super::numbers::{Measured, OnDevice, Unread};
use super::{Run, TrainError};
use crate::observe::StepNumbers;
use crate::reduce::norm;

impl Run {
    /// Whether the step that completes `step` ends with something that needs its numbers or waits for the device.
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

    /// Loss and norm of the mean gradient, in the step after `step` completed ones.
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

    /// Scales the gradients down to the job's norm, by the factor of `torch.nn.utils.clip_grad_norm_`; but the norm is a sum
    /// in 64 bits.
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
                // The same operations on the same bits. A quotient of a plain number would be a product with the reciprocal.
                let factor = grad_norm.f_full_like(limit)?.f_div(&grad_norm.f_add_scalar(1e-6)?)?.f_clamp_max(1.0)?;
                let _ = gradients.f_mul_(&factor.f_to_kind(gradients.kind())?)?;
            }
        }
        Ok(())
    }

    /// As [`Run::settle`] when the run ends by `error`: why it would have ended without. The others may be anywhere, and are not asked.
    pub(super) fn settle_alone(&mut self, error: &TrainError) -> Option<TrainError> {
        // What is on the device may be of an exchange that was cut, and no number of the run's.
        if matches!(error, TrainError::Exchange { .. }) || !self.unread.as_ref()?.measured.is_there_soon() {
            return None;
        }
        let exchange = self.exchange.take();
        let settled = self.settle();
        self.exchange = exchange;
        settled.err().filter(|earlier| matches!(earlier, TrainError::NotFinite { .. }))
    }

    /// Reads loss and norm of the step before, where they are still unread, and reports it. If one is not finite, that step was the
    /// last: the state is the one that it began with.
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
