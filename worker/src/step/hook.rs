//! Hooks into the training loop, for code that is not part of training. A run has no hook unless its process adds one.

use tch::Tensor;

use super::TrainError;
use crate::checkpoint::State;

/// The training thread calls a hook twice in each step. An error ends the run; its text is the reason.
///
/// With a hook, gradients are not reduced during the backward pass, so that the hook gets each gradient before it is reduced.
pub trait StepHook {
    /// Called in the step that completes `step`, before the flat `gradient` of `rank` is added to those of other ranks.
    fn gradient(&mut self, step: u64, rank: u32, gradient: &Tensor) -> Result<(), String>;

    /// Called after the optimizer's step, before the state is compared with other processes, recorded or saved.
    fn stepped(&mut self, state: &State) -> Result<(), String>;
}

/// The hooks of a run, called in the order in which they were added.
#[derive(Default)]
pub(super) struct Hooks(Vec<Box<dyn StepHook>>);

impl Hooks {
    pub(super) fn add(&mut self, hook: Box<dyn StepHook>) {
        self.0.push(hook);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn gradient(&mut self, step: u64, rank: u32, gradient: &Tensor) -> Result<(), TrainError> {
        self.0.iter_mut().try_for_each(|hook| hook.gradient(step, rank, gradient)).map_err(TrainError::Hook)
    }

    pub(super) fn stepped(&mut self, state: &State) -> Result<(), TrainError> {
        self.0.iter_mut().try_for_each(|hook| hook.stepped(state)).map_err(TrainError::Hook)
    }
}
