//! The parts of a model: its named tensors, drawn in a fixed order from one seed, and its description.

use std::fmt::Write;

use tch::{Device, Kind, Tensor};

use super::{ModelError, Parameter};

/// A model's tensors, and the lines of its description.
#[derive(Debug, Default)]
pub struct Parts {
    /// The parameters, in the order of definition.
    pub parameters: Vec<Parameter>,
    /// The buffers by name: state that training changes without gradients.
    pub buffers: Vec<(String, Tensor)>,
    lines: Vec<(String, String)>,
}

/// Creates [`Parts`]. Every tensor is drawn on the CPU, from a generator that was seeded once, in the order of the calls, and then moved to
/// the device. So the bits are the same in every process and on every device.
pub(crate) struct Builder {
    device: Device,
    parts: Parts,
}

/// The initial values of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    /// Uniform in `[-bound, bound)`.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// The same value for all elements.
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

    /// Creates a buffer with the same value for all elements.
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
    /// A parameter to which weight decay applies if it has two or more axes.
    pub fn new(name: String, tensor: Tensor) -> Self {
        let decay = tensor.dim() >= 2;
        Self { name, tensor, decay }
    }
}

impl Parts {
    /// No tensors and no lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of the description: the module at `path`, in words.
    pub fn module(&mut self, path: &str, what: impl Into<String>) {
        self.lines.push((path.to_owned(), what.into()));
    }

    /// The description: a title with the number of all parameters, then a line for each module, indented by its depth.
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
