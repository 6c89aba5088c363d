//! A fault on purpose, for tests of what finds faults: one flipped bit in one tensor after one step, or in the gradient
//! of one rank before it is added.
//!
//! Named by the environment variable `LOCKSTEP_FAULT=JOB:PROCESS:STEP:TENSOR:ELEMENT:BIT`, where PROCESS may be
//! `*`, and `@G` behind it stands for generation G only; TENSOR is named as in a manifest, or is `rank/R`. It warns when it
//! strikes, and shows in the environment of every manifest.

use std::str::FromStr;

use lockstep_tch_ext::memory::cpu_bytes_mut;
use tch::{Device, Tensor};
use tracing::warn;

use crate::checkpoint::State;

/// The variable that names a fault.
pub const VARIABLE: &str = "LOCKSTEP_FAULT";

/// One flipped bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the job that it concerns.
    pub job: String,
    /// The process; all, if none is named.
    pub process: Option<u32>,
    /// The generation; all, if none is named.
    pub generation: Option<u64>,
    /// Steps completed.
    pub step: u64,
    /// The tensor.
    pub tensor: String,
    /// Index of its element, in row-major order.
    pub element: usize,
    /// The bit, from the lowest.
    pub bit: usize,
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
    /// The fault that the environment names for this generation of a run of `job`.
    pub fn from_environment(job: &str, generation: u64) -> Result<Option<Self>, String> {
        let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
        let fault: Self = text.parse().map_err(|error| format!("{VARIABLE}: {error}"))?;
        let meant = fault.job == job && fault.generation.is_none_or(|of| of == generation);
        Ok(meant.then_some(fault))
    }

    /// Flips the bit, if it is one of `state`, and that is at its step.
    pub fn strike(&self, state: &State) -> Result<(), String> {
        if state.step != self.step || self.tensor.starts_with("rank/") {
            return Ok(());
        }
        let named = state.tensors().iter().find(|named| named.name == self.tensor);
        let named = named.ok_or_else(|| format!("{VARIABLE}: there is no tensor `{}`", self.tensor))?;
        self.flip(&named.tensor)
    }

    /// Flips the bit in the flat gradient of `rank` in the step that completes `step`, if it is meant.
    pub fn strike_rank(&self, step: u64, rank: u32, gradient: &Tensor) -> Result<(), String> {
        if step == self.step && self.tensor == format!("rank/{rank}") { self.flip(gradient) } else { Ok(()) }
    }

    fn flip(&self, tensor: &Tensor) -> Result<(), String> {
        let width = tensor.kind().elt_size_in_bytes();
        let mut copy = tensor.detach().copy().to_device(Device::Cpu);
        let bytes = cpu_bytes_mut(&mut copy).map_err(|error| error.to_string())?;
        let byte = bytes.get_mut(self.element * width + self.bit / 8).filter(|_| self.bit < width * 8);
        *byte.ok_or_else(|| format!("{VARIABLE}: `{}` has no such element or bit", self.tensor))? ^=
            1 << (self.bit % 8);
        tch::no_grad(|| tensor.shallow_clone().copy_(&copy));
        warn!(step = self.step, tensor = self.tensor, "flipped bit {} of element {}", self.bit, self.element);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_or_refused() {
        let fault: Fault = "digits:*:137:model/0.weight:5:20".parse().unwrap();
        assert_eq!((fault.process, fault.step, fault.tensor.as_str(), fault.bit), (None, 137, "model/0.weight", 20));
        let fault: Fault = "digits:1@3:137:x:5:20".parse().unwrap();
        assert_eq!((fault.process, fault.generation), (Some(1), Some(3)));
        for bad in ["j:0@:1:t:0:0", "", "a:b", "j:x:1:t:0:0", "j:0:1:t:0:", "j:0:1:t:0:0:0"] {
            assert!(bad.parse::<Fault>().unwrap_err().contains(bad), "{bad}");
        }
    }
}
