//! A fault on purpose, for tests of what finds faults: one flipped bit in one tensor after one step, or in the gradient
//! of one rank before it is added.
//!
//! Named by the environment variable `LOCKSTEP_FAULT=JOB:PROCESS:STEP:TENSOR:ELEMENT:BIT`, where PROCESS may be
//! `*`, and `@G` behind it stands for generation G only; TENSOR is named as in a manifest, or is `rank/R`. It warns when it
//! strikes, and shows in the environment of every manifest.

use std::str::FromStr;

use lockstep_tch_ext::memory::bytes_of;
use tch::{Device, Tensor};
use tracing::warn;

use crate::checkpoint::State;
use crate::step::StepHook;

/// The variable that names a fault.
const VARIABLE: &str = "LOCKSTEP_FAULT";

/// One flipped bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Name of the job that it concerns.
    job: String,
    /// The process; all, if none is named.
    process: Option<u32>,
    /// The generation; all, if none is named.
    generation: Option<u64>,
    /// Steps completed.
    step: u64,
    /// The tensor.
    tensor: String,
    /// Index of its element, in row-major order.
    element: usize,
    /// The bit, from the lowest.
    bit: usize,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no fault: expected JOB:PROCESS[@GENERATION]:STEP:TENSOR:ELEMENT:BIT");
        let parts: Vec<&str> = text.split(':').collect();
        let [job, process, step, tensor, element, bit] = parts[..] else { return Err(wrong()) };
        let (process, generation) = match process.split_once('@') {
            Some((process, generation)) => (process, Some(generation.parse().map_err(|_| wrong())?)),
            None => (process, None),
        };
        Ok(Self {
            job: job.to_owned(),
            process: if process == "*" { None } else { Some(process.parse().map_err(|_| wrong())?) },
            generation,
            step: step.parse().map_err(|_| wrong())?,
            tensor: tensor.to_owned(),
            element: element.parse().map_err(|_| wrong())?,
            bit: bit.parse().map_err(|_| wrong())?,
        })
    }
}

impl Fault {
    /// The fault that the environment names for `process` in this generation of a run of `job`.
    pub(super) fn from_environment(job: &str, generation: u64, process: u32) -> Result<Option<Self>, String> {
        let Some(text) = named() else { return Ok(None) };
        let fault: Self = text.parse().map_err(|error| format!("{VARIABLE}: {error}"))?;
        Ok(fault.is_meant_for(job, generation, process).then_some(fault))
    }

    fn is_meant_for(&self, job: &str, generation: u64, process: u32) -> bool {
        self.job == job
            && self.generation.is_none_or(|of| of == generation)
            && self.process.is_none_or(|of| of == process)
    }

    fn flip(&self, tensor: &Tensor) -> Result<(), String> {
        let width = tensor.kind().elt_size_in_bytes();
        let plain = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = bytes_of(&plain).map_err(|error| error.to_string())?;
        let byte = bytes.get_mut(self.element * width + self.bit / 8).filter(|_| self.bit < width * 8);
        *byte.ok_or_else(|| format!("{VARIABLE}: `{}` has no such element or bit", self.tensor))? ^=
            1 << (self.bit % 8);
        let flipped = Tensor::from_data_size(&bytes, &plain.size(), plain.kind());
        tch::no_grad(|| tensor.shallow_clone().copy_(&flipped));
        warn!(step = self.step, tensor = self.tensor, "flipped bit {} of element {}", self.bit, self.element);
        Ok(())
    }
}

impl StepHook for Fault {
    fn gradient(&mut self, step: u64, rank: u32, gradient: &Tensor) -> Result<(), String> {
        if step == self.step && self.tensor == format!("rank/{rank}") { self.flip(gradient) } else { Ok(()) }
    }

    fn stepped(&mut self, state: &State) -> Result<(), String> {
        if state.step != self.step || self.tensor.starts_with("rank/") {
            return Ok(());
        }
        let named = state.tensors().iter().find(|named| named.name == self.tensor);
        let named = named.ok_or_else(|| format!("{VARIABLE}: there is no tensor `{}`", self.tensor))?;
        self.flip(&named.tensor)
    }
}

/// What [`VARIABLE`] is, if it is set.
pub(super) fn named() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_or_refused_and_meant_for_one_process() {
        let fault: Fault = "digits:*:137:model/0.weight:5:20".parse().unwrap();
        assert_eq!((fault.process, fault.step, fault.tensor.as_str(), fault.bit), (None, 137, "model/0.weight", 20));
        let fault: Fault = "digits:1@3:137:x:5:20".parse().unwrap();
        assert_eq!((fault.process, fault.generation), (Some(1), Some(3)));
        let meant = [("digits", 3, 1), ("other", 3, 1), ("digits", 2, 1), ("digits", 3, 0)];
        let meant = meant.map(|(job, generation, process)| fault.is_meant_for(job, generation, process));
        assert_eq!(meant, [true, false, false, false]);
        for bad in ["j:0@:1:t:0:0", "", "a:b", "j:x:1:t:0:0", "j:0:1:t:0:", "j:0:1:t:0:0:0"] {
            assert!(bad.parse::<Fault>().unwrap_err().contains(bad), "{bad}");
        }
    }
}
