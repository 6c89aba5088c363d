//! Checks that the data files are still the verified ones: before each checkpoint, before the run is finished, and when a step fails.

use super::{Run, TrainError};
use crate::checkpoint::Writer;

impl Run {
    /// Ends the run if the checkpoint thread has found a changed file.
    pub(super) fn data_is_unchanged(&mut self) -> Result<(), TrainError> {
        self.checkpoints.as_ref().and_then(Writer::changed).map_or(Ok(()), |error| Err(error.into()))
    }

    /// `error`, or an earlier error that explains it: a state that was not finite when a checkpoint copied it, or a changed file.
    pub(super) fn blame(&mut self, error: TrainError) -> TrainError {
        if let Err(earlier) = self.copy_is_finite() {
            return earlier;
        }
        let error = self.settle_alone(&error).unwrap_or(error);
        let explained = matches!(
            error,
            TrainError::Data { .. } | TrainError::Model { .. } | TrainError::NotFinite { .. } | TrainError::Torch(_)
        );
        if !explained {
            return error;
        }
        match self.trainer.watch.check() {
            Err(changed) if changed.is_change_in_training() => changed.into(),
            _ => error,
        }
    }
}
