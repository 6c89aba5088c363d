//! Injects a fault, for tests of fault detection: one flipped bit in one tensor after one step, or in the gradient of one rank before the
//! reduction.
//!
//! The environment variable `LOCKSTEP_FAULT=JOB:PROCESS[@GENERATION]:STEP:TENSOR:ELEMENT:BIT` names the fault. PROCESS is a process index
//! or `*` for all; without `@GENERATION` it applies to every generation. TENSOR is a name as in manifests, or `rank/R` for the gradient
//! of rank R. The fault logs a warning when it is injected, and is recorded in the environment of every manifest.

use std::str::FromStr;

use lockstep_tch_ext::memory::bytes_of;
use tch::{Device, Tensor};
use tracing::warn;

use crate::checkpoint::State;
use crate::step::StepHook;

/// The environment variable that names a fault.
const VARIABLE: &str = "LOCKSTEP_FAULT";

/// One bit to flip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Name of the job.
    job: String,
    /// Process index; `None` for all processes.
    process: Option<u32>,
    /// Generation; `None` for all generations.
    generation: Option<u64>,
    /// The step after which the bit is flipped.
    step: u64,
    /// Name in a manifest, or `rank/R`.
    tensor: String,
    /// Index of the element, in row-major order.
    element: usize,
    /// Index of the bit within the element; 0 is the lowest.
    bit: usize,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid fault `{text}`: expected JOB:PROCESS[@GENERATION]:STEP:TENSOR:ELEMENT:BIT");
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
        *byte.ok_or_else(|| {
            format!("{VARIABLE}: tensor `{}` has no element {} with a bit {}", self.tensor, self.element, self.bit)
        })? ^= 1 << (self.bit % 8);
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
        let named = named.ok_or_else(|| {
            format!("{VARIABLE}: the state has no tensor `{}`: name one of the checkpoint's tensors", self.tensor)
        })?;
        self.flip(&named.tensor)
    }
}

/// The value of [`VARIABLE`], if it is set.
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
