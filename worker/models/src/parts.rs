//! What a model is made of: its named tensors, drawn in a fixed order from one seed, and its description.

use std::fmt::Write;

use tch::{Device, Kind, Tensor};

use super::{ModelError, Parameter};

/// A model's tensors and the lines that describe it.
#[derive(Debug, Default)]
pub struct Parts {
    /// What is trained, in the order of definition.
    pub parameters: Vec<Parameter>,
    /// What training changes without gradients.
    pub buffers: Vec<(String, Tensor)>,
    lines: Vec<(String, String)>,
}

/// Makes [`Parts`]: every tensor is drawn on the CPU, from a generator that was seeded at the start, in the order of the
/// calls, and only then moved. So the bits are the same in every process and on every device.
pub(crate) struct Builder {
    device: Device,
    parts: Parts,
}

/// How a tensor begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    /// Uniform in `[-bound, bound)`.
    Uniform(f64),
    /// Normal around 0 with this deviation.
    Normal(f64),
    /// One value everywhere.
    Constant(f64),
}

impl Builder {
    /// Seeds torch's generators.
    pub(crate) fn new(seed: u64, device: Device) -> Self {
        tch::manual_seed(seed as i64);
        Self { device, parts: Parts::new() }
    }

    /// A line of the description: the module at `path`, in words.
    pub(crate) fn module(&mut self, path: &str, what: impl Into<String>) {
        self.parts.module(path, what);
    }

    /// Draws the next parameter.
    pub(crate) fn parameter(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, ModelError> {
        let mut tensor = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
        let drawn = match init {
            Init::Uniform(bound) => tensor.f_uniform_(-bound, bound)?,
            Init::Normal(deviation) => tensor.f_normal_(0.0, deviation)?,
            Init::Constant(value) => tensor.f_fill_(value)?,
        };
        let leaf = drawn.f_to(self.device)?.f_set_requires_grad(true)?;
        self.parts.parameters.push(Parameter::new(name, leaf.shallow_clone()));
        Ok(leaf)
    }

    /// A buffer of one value.
    pub(crate) fn buffer(&mut self, name: String, shape: &[i64], kind: Kind, value: f64) -> Result<Tensor, ModelError> {
        let tensor = Tensor::f_full(shape, value, (kind, self.device))?;
        self.parts.buffers.push((name, tensor.shallow_clone()));
        Ok(tensor)
    }

    pub(crate) fn finish(self) -> Parts {
        self.parts
    }
}

impl Parameter {
    /// One that decays if it has two axes or more.
    pub fn new(name: String, tensor: Tensor) -> Self {
        let decay = tensor.dim() >= 2;
        Self { name, tensor, decay }
    }
}

impl Parts {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of the description: the module at `path`, in words.
    pub fn module(&mut self, path: &str, what: impl Into<String>) {
        self.lines.push((path.to_owned(), what.into()));
    }

    /// The tree: a title with the total, then a line for each module, indented by its depth.
    pub fn describe(&self, title: &str) -> String {
        let count = |below: &str| -> usize {
            let below = |name: &str| name.strip_prefix(below).is_some_and(|rest| rest.starts_with('.'));
            let counted = self.parameters.iter().filter(|parameter| below(&parameter.name));
            counted.map(|parameter| parameter.tensor.numel()).sum()
        };
        let total: usize = self.parameters.iter().map(|parameter| parameter.tensor.numel()).sum();
        let mut text = format!("{title}: {total} parameters\n");
        let mut open: Vec<&str> = Vec::new();
        for (path, what) in &self.lines {
            let inside = |parent: &str| path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'));
            while open.last().is_some_and(|parent| !inside(parent)) {
                open.pop();
            }
            let name = open.last().map_or(path.as_str(), |parent| &path[parent.len() + 1..]);
            let indent = 2 * (open.len() + 1);
            writeln!(text, "{:indent$}{name}: {what}, {} parameters", "", count(path)).expect("a string takes all");
            open.push(path);
        }
        text
    }
}
