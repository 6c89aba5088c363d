//! The optimizer's step. While a checkpoint copies the state, the update of each parameter waits for the copies of its own tensors. Hot.

use lockstep_tch_ext::optim::Update;
use tch::Device;

use super::numbers::Measured;
use super::{Run, TrainError};
use crate::checkpoint::ChangedBy;
use crate::observe::Phase;

impl Run {
    /// Updates the parameters in the step that completes `step + 1`, and returns the learning rate.
    pub(super) fn update(&mut self, step: u64, measured: &Measured) -> Result<f64, TrainError> {
        let (job, state) = (&self.trainer.job, &mut self.trainer.state);
        let lr = job.schedule.lr(job.optimizer.lr, step, job.steps);
        let used = self.reducer.used()?;
        let found_inf = match measured {
            Measured::Read { .. } => None,
            Measured::OnDevice(both) => Some(&both.found_inf),
        };
        let update = Update { grads: self.reducer.parts()?, used: Some(&used), lr, found_inf };
        let beside = self.checkpoints.as_ref().filter(|checkpoints| checkpoints.is_copying());
        if let Some(checkpoints) = beside {
            let reporter = &mut self.reporter;
            let mut ready = |change| {
                reporter.spent(Phase::Optimizer);
                let ready = checkpoints.ready(change);
                reporter.spent(Phase::Checkpoint);
                ready
            };
            // On a GPU one call updates all parameters, which takes less time than a copy.
            let on_cpu = self.trainer.device == Device::Cpu;
            if ready(if on_cpu { ChangedBy::Optimizer } else { ChangedBy::Update(usize::MAX) }) {
                let ready = |place| !on_cpu || ready(ChangedBy::Update(place));
                state.optimizer.step_when(&update, ready)?;
            }
            self.copy_is_finite()?;
        } else {
            state.optimizer.step(&update)?;
        }
        self.trainer.state.step = step + 1;
        self.reporter.spent(Phase::Optimizer);
        Ok(lr)
    }
}
