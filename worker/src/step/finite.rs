//! Checks that loss, gradients and the state in a checkpoint are finite. Loss and gradients are checked before the optimizer's step,
//! because the step itself may overflow.

use lockstep_models::Context;
use lockstep_tch_ext::memory::copy_finite;
use tch::{Device, Kind, Tensor};

use super::buffers::Buffers;
use super::{Run, TrainError, Trainer, borrow};
use crate::checkpoint::State;
use crate::observe::NonFinite;

impl Run {
    /// Checks that `value` is finite. If it is not, re-runs the step to find the first tensor that is not finite.
    pub(super) fn finite(&mut self, what: &'static str, step: u64, value: f64) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        // If the state itself is not finite, that is the error: everything computed from it is not finite, either.
        self.copy_is_finite()?;
        self.reporter.number(if what == "loss" { "loss" } else { "grad_norm" }, None, step + 1, value);
        // An error during the search must not replace the original error.
        let mut found = self.find_non_finite(step).unwrap_or_default();
        if let Some(exchange) = borrow(&mut self.exchange) {
            // All processes report the same finding. If the others have ended already, this process reports its own.
            found = NonFinite::shared(found.as_ref(), self.trainer.device, exchange).ok().flatten().or(found);
        }
        let first = found.map(|found| {
            found.report(&mut self.reporter, step + 1);
            found.to_string()
        });
        Err(TrainError::NotFinite { step: step + 1, what, value, first })
    }

    /// Finds the first tensor that is not finite in the passes of the hosted ranks.
    fn find_non_finite(&mut self, step: u64) -> Result<Option<NonFinite>, TrainError> {
        let Trainer { job, data, samples, ranks, device, state, .. } = &mut self.trainer;
        let names: Vec<&str> = state.model.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
        let mut restore = || self.buffers.as_mut().map_or(Ok(()), Buffers::restore);
        restore()?;
        if let Some(found) = NonFinite::held(state.model.as_ref())? {
            return Ok(Some(found));
        }
        for rank in self.hosted.clone() {
            ranks.seed_generators(step, rank)?;
            restore()?;
            let positions = samples.positions(step, rank..rank + 1);
            let batch = data.train.batch(&positions, *device).map_err(|source| TrainError::Data { step, source })?;
            if let Some(found) = NonFinite::inputs(rank, &batch)? {
                return Ok(Some(found));
            }
            let context = Context { step, rank, training: true, root: job.seed };
            let forward = || state.model.loss(&batch, &context);
            let (loss, found) = NonFinite::forward(&mut self.reporter, step + 1, rank, state.model.as_ref(), forward)?;
            if found.is_some() {
                return Ok(found);
            }
            let loss = loss.map_err(|source| TrainError::Model { step, source })?;
            if let Some(found) = NonFinite::loss(rank, &loss)? {
                return Ok(Some(found));
            }
            let gradients = Tensor::f_run_backward(&[loss], &self.parameters, false, false)?;
            if let Some(found) = NonFinite::backward(rank, &names, &gradients)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Ends the run if a checkpoint is due and its parameters or its optimizer state are not finite. Buffers may hold infinities, as
    /// masks do.
    ///
    /// On the CPU the checkpoint's copy is checked instead ([`Run::copy_is_finite`]), unless an evaluation comes before it.
    pub(super) fn state_is_finite(&mut self) -> Result<(), TrainError> {
        let Trainer { job, state, device, replay, .. } = &self.trainer;
        let step = state.step;
        let measured = job.eval_due(step) || job.importance_due(step);
        let copied = self.checkpoints.is_some() && *device == Device::Cpu && !measured;
        // A replay is compared with the record of the run.
        if *replay || copied || !job.checkpoint_due(step) {
            return Ok(());
        }
        self.ends_as_not_finite(step, |_| true)
    }

    /// Waits until the state is copied for a checkpoint, if a copy is in progress, and ends the run as [`Run::state_is_finite`] does. A
    /// tensor that was not finite when it was copied has not changed since.
    pub(super) fn copy_is_finite(&mut self) -> Result<(), TrainError> {
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(()) };
        let found = checkpoints.copied();
        let step = checkpoints.last_step().unwrap_or(0);
        if found.is_empty() {
            Ok(())
        } else {
            self.ends_as_not_finite(step, |name| found.iter().any(|other| other == name))
        }
    }

    fn ends_as_not_finite(&mut self, step: u64, of: impl Fn(&str) -> bool) -> Result<(), TrainError> {
        let Some((value, found)) = not_finite(&self.trainer.state, of)? else { return Ok(()) };
        found.report(&mut self.reporter, step);
        Err(TrainError::NotFinite { step, what: "state", value, first: Some(found.to_string()) })
    }
}

/// Among the tensors of the state that `of` selects by name: the first one that is not finite, and its largest magnitude.
fn not_finite(state: &State, of: impl Fn(&str) -> bool) -> Result<Option<(f64, NonFinite)>, TrainError> {
    let own = state.model.parameters().iter().filter(|parameter| of(&format!("model/{}", parameter.name)));
    let own = own.map(|parameter| (format!("weight/{}", parameter.name), parameter.tensor.detach()));
    let others = state.tensors().iter().filter(|named| named.name.starts_with("optimizer/") && of(&named.name));
    let others = others.map(|named| (named.name.clone(), named.tensor.shallow_clone()));
    let floats = own.chain(others).filter(|(_, tensor)| tensor.is_floating_point() && tensor.numel() > 0);
    let (mut named, mut largest) = (Vec::new(), Vec::new());
    for (name, tensor) in floats {
        // Most tensors are finite, and on the CPU this check takes a fifth of the time of the norm below.
        if tensor.device() == Device::Cpu && copy_finite(&tensor, None)? {
            continue;
        }
        // The largest magnitude; NaN if any element is NaN.
        let norm = tensor.f_norm_scalaropt_dim(f64::INFINITY, [] as [i64; 0], false)?;
        largest.push(norm.f_to_kind(Kind::Double)?);
        named.push((name, tensor));
    }
    if named.is_empty() {
        return Ok(None);
    }
    // One read from the device for all tensors.
    let largest = Vec::<f64>::try_from(Tensor::f_stack(&largest, 0)?.f_to(Device::Cpu)?)?;
    let bad = named.iter().zip(largest).find(|(_, largest)| !largest.is_finite());
    let Some(((name, tensor), largest)) = bad else { return Ok(None) };
    Ok(NonFinite::in_state(name, tensor)?.map(|found| (largest, found)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lockstep_common::job::parse_toml;
    use lockstep_data::{InputKind, SampleShape, Targets};
    use lockstep_models::build_model;

    use super::*;

    fn state(kind: &str) -> State {
        let text = format!(
            "name = \"t\"\nsteps = 1\nbatch = {{ size = 1 }}\noptimizer = {{ kind = \"{kind}\", lr = 0.1 }}\n\
             data = {{ kind = \"idx\", images = \"x\", labels = \"y\" }}\n\
             model = {{ kind = \"resnet\", blocks = 1, width = 2, outputs = 2 }}"
        );
        let job = parse_toml(&text, &[]).unwrap();
        let shape =
            SampleShape { input: vec![1, 8, 8], kind: InputKind::Image, targets: Targets::Classes { count: 2 } };
        let model = build_model(&job, &shape, &Path::new(".").into(), Device::Cpu).unwrap();
        State::new(&job, model).unwrap()
    }

    fn set(tensor: &Tensor, value: f64) {
        let _filled = tensor.detach().view([-1]).narrow(0, 0, 1).fill_(value);
    }

    #[test]
    fn parameters_and_the_optimizers_state_must_be_finite_and_buffers_need_not() {
        let found =
            |state: &State| not_finite(state, |_| true).unwrap().map(|(value, found)| (value, found.to_string()));
        let state = state("adam");
        assert_eq!(found(&state), None);
        for (_, buffer) in state.model.buffers() {
            if buffer.is_floating_point() {
                set(buffer, f64::NEG_INFINITY);
            }
        }
        assert_eq!(found(&state), None);
        let moment = state.tensors().iter().rfind(|named| named.name.starts_with("optimizer/")).unwrap();
        set(&moment.tensor, f64::INFINITY);
        let (value, first) = found(&state).unwrap();
        assert!(value == f64::INFINITY && first.starts_with(&format!("`{}` (1 of ", moment.name)), "{first}");
        let last = state.model.parameters().last().unwrap();
        set(&last.tensor, f64::NAN);
        let (value, first) = found(&state).unwrap();
        assert!(value.is_nan() && first.starts_with(&format!("the weight `{}` (1 of ", last.name)), "{first}");
        // The largest finite number passes.
        let state = self::state("sgd");
        set(&state.model.parameters()[0].tensor, f64::from(f32::MAX));
        assert_eq!(found(&state), None);
    }
}
