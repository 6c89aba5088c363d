//! Records a step, and checks by fingerprints that the processes agree. Hot.

use lockstep_common::contents::Contents;
use lockstep_common::record;
use lockstep_rpc::Agreed;
use lockstep_rpc::process_message::Body;

use super::numbers::{Measured, Unread};
use super::{Run, TrainError, Trainer, borrow};
use crate::evidence::{Divergence, Taken, numerics};
use crate::observe::{Phase, StepNumbers};

impl Run {
    /// Records the step, with fingerprints if they are due. Fails if the processes' fingerprints differ.
    pub(super) fn record(&mut self, lr: f64, measured: Measured) -> Result<(), TrainError> {
        self.trainer.hooks.stepped(&self.trainer.state)?;
        self.history.end_step();
        let contents = self.contents()?;
        let step = self.trainer.state.step;
        if self.fingerprints.compared || self.trainer.job.checkpoint_due(step) || step == self.trainer.until {
            numerics::check(&self.trainer.job).map_err(|source| TrainError::FloatMode { step, source })?;
        }
        let taken = if self.fingerprints.taken { Some(self.take_fingerprints()?) } else { None };
        if self.fingerprints.compared {
            self.agreed = step;
            self.history.clear();
        }
        let Trainer { samples, state, .. } = &mut self.trainer;
        let step = state.step;
        let mut positions = 0;
        if self.process.index == 0 {
            // Process 0 hosts the first ranks, and records the positions of all ranks.
            let others = self.hosted.end..samples.sampler().ranks();
            self.seen.positions.extend(samples.positions(step - 1, others));
            positions = record::positions(&self.seen.positions);
        }
        let recorded = taken.filter(|_| self.process.index == 0 && self.fingerprints.recorded);
        let recorded = recorded.map(|taken| self.fingerprinter.whole(taken));
        match measured {
            Measured::Read { loss, grad_norm } => {
                self.reporter.step(&StepNumbers { step, loss, grad_norm, lr, positions, contents }, recorded);
            }
            Measured::OnDevice(measured) => self.unread = Some(Unread { step, measured, lr, positions, contents }),
        }
        self.reporter.spent(Phase::Record);
        Ok(())
    }

    /// The digest of the bytes of all ranks' samples; 0 if some are unknown.
    fn contents(&mut self) -> Result<u64, TrainError> {
        let (step, own) = (self.trainer.state.step, self.seen.word());
        let Some(exchange) = borrow(&mut self.exchange) else { return Ok(own) };
        let others = exchange.notes().map_err(|source| TrainError::Exchange { step, source })?;
        Ok(Contents::of_parts(others.into_iter().chain([own])))
    }

    /// Takes the fingerprints of the state, and compares them with the other processes.
    fn take_fingerprints(&mut self) -> Result<Taken, TrainError> {
        let step = self.trainer.state.step;
        let mut taken = self.fingerprinter.take(&self.trainer.state)?;
        if let Some(exchange) = borrow(&mut self.exchange) {
            let failed = |source| TrainError::Exchange { step, source };
            self.reporter.spent(Phase::Record);
            let found = self.fingerprinter.compare(&mut taken, exchange).map_err(failed)?;
            // Most of this time is waiting for other processes, as in the reduction.
            self.reporter.spent(Phase::Reduction);
            if let Some(found) = found {
                // The difference is reported even if the other processes have ended already.
                let divergence = Divergence { history: self.whole_history().unwrap_or_default(), ..found };
                return Err(TrainError::Corrupt { step, agreed: self.agreed, divergence });
            }
        }
        if self.trainer.judge_at.contains(&step) {
            let history = self.whole_history()?;
            // Every process reports it: a device is not fenced on the report of a single other node.
            self.reporter.say(Body::Agreed(Agreed { step, fingerprint: taken.digest, trail: history }));
        }
        Ok(taken)
    }

    /// The gradient histories of all ranks since the processes last agreed.
    fn whole_history(&mut self) -> Result<Vec<u64>, TrainError> {
        let (step, own) = (self.trainer.state.step, self.history.words()?);
        match borrow(&mut self.exchange) {
            Some(exchange) => {
                let failed = |source| TrainError::Exchange { step, source };
                self.fingerprinter.whole_history(own, exchange).map_err(failed)
            }
            None => Ok(own),
        }
    }
}
