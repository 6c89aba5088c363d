//! Hooks into the training loop, for code that is no part of training. A run has none unless its process adds one.

use tch::Tensor;

use super::TrainError;
use crate::checkpoint::State;

/// Called by the training thread at the two seams of each step. An error ends the run with these words.
///
/// With a hook, no gradient is reduced beside the backward pass: each is whole when the hook gets it.
pub trait StepHook {
    /// Before the flat gradient of `rank` is added to others, in the step that completes `step`.
    fn gradient(&mut self, step: u64, rank: u32, gradient: &Tensor) -> Result<(), String>;

    /// After the optimizer's step, before the state is compared with other processes', recorded or saved.
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
