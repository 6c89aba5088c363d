//! Fused optimizers: SGD, Adam and AdamW, with the kernels that `torch.optim` uses with `fused=True`, so that the bits are those of
//! PyTorch. Their state is available as named tensors.
//!
//! Hot: a step builds no list of tensors; gradients go into lists that are reused.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};

use tch::{Kind as Dtype, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, PushTensor};

/// Name of [`Optimizer::steps`] in a saved state.
pub const STEPS: &str = "steps";

/// The kind of optimizer, and its parameters that are constant over a run. The learning rate is an argument of each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Stochastic gradient descent, `torch.optim.SGD`.
    Sgd {
        /// Factor of the previous update; with 0 there is no state.
        momentum: f64,
        /// Fraction of the gradient that is not added to the momentum, from the second step on.
        dampening: f64,
        /// Nesterov momentum; needs `momentum` above 0, and `dampening` 0.
        nesterov: bool,
    },
    /// `torch.optim.Adam`: weight decay is added to the gradient.
    Adam {
        /// Decay rate of the mean gradient.
        beta1: f64,
        /// Decay rate of the mean squared gradient.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
    },
    /// `torch.optim.AdamW`: weight decay is applied to the weights directly.
    AdamW {
        /// Decay rate of the mean gradient.
        beta1: f64,
        /// Decay rate of the mean squared gradient.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
    },
}

/// The arguments of one step.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Gradients in the order of the parameters, each in its parameter's shape and element type.
    pub grads: &'a [Tensor],
    /// A byte for each parameter; the parameters with bytes other than 0 take part. `None`: all take part. The others keep their value,
    /// moments and count of steps, as in `torch.optim` a parameter whose `grad` is `None`.
    pub used: Option<&'a [u8]>,
    /// Learning rate of this step.
    pub lr: f64,
    /// A 32-bit float on the device of the parameters. If it is 1, parameters, moments and the device's count of steps stay unchanged. The
    /// host's counts change all the same, so no other step may follow. If it is 0, it has no effect.
    pub found_inf: Option<&'a Tensor>,
}

impl<'a> Update<'a> {
    /// All parameters take part, also if gradients are not finite.
    pub fn all(grads: &'a [Tensor], lr: f64) -> Self {
        Self { grads, used: None, lr, found_inf: None }
    }
}

/// An optimizer for a fixed list of parameters, all on one device.
///
/// It shares the storage of the parameters, and changes them in place.
#[derive(Debug)]
pub struct Optimizer {
    raw: *mut COptim,
    kind: Kind,
    names: Vec<String>,
}

// SAFETY: the C++ object consists of plain data and tensors, which are `Send` in `tch`, too; it belongs to no thread.
unsafe impl Send for Optimizer {}

impl Optimizer {
    /// An optimizer of `kind` for parameters, given as name, tensor and weight decay.
    ///
    /// Tensors with equal weight decay and element type share one fused call. The initial state is zero.
    ///
    /// # Errors
    /// `Torch` if the parameters are on several devices.
    #[expect(clippy::needless_pass_by_value, reason = "the optimizer shares ownership of the parameters")]
    pub fn new(kind: Kind, params: Vec<(String, Tensor, f64)>) -> Result<Self, Error> {
        let tensors: Vec<_> = params.iter().map(|(_, tensor, _)| ffi::raw(tensor)).collect();
        let decays: Vec<f64> = params.iter().map(|(_, _, weight_decay)| *weight_decay).collect();
        let config = kind.config();
        let mut raw = std::ptr::null_mut();
        // SAFETY: both lists have `params.len()` entries and live during the call, as do the tensors.
        ffi::check(unsafe {
            lte_optim_new(&raw const config, tensors.as_ptr(), decays.as_ptr(), params.len(), &raw mut raw)
        })?;
        let names = params.iter().map(|(name, _, _)| name.clone()).collect();
        Ok(Self { raw, kind, names })
    }

    /// Updates the parameters and their state once.
    ///
    /// # Errors
    /// `Count`, `NoGradient`, or `Torch` for shapes that do not fit. Nothing has changed then.
    pub fn step(&mut self, update: &Update<'_>) -> Result<(), Error> {
        self.step_some(update, (None, std::ptr::null_mut()))
    }

    /// The same with the same bits, but a few parameters at a time. Before a parameter and its state change, `ready` is called with its
    /// position, and may wait. If it returns false, the step ends, and only some of the parameters are updated.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step_when<R: FnMut(usize) -> bool>(&mut self, update: &Update<'_>, mut ready: R) -> Result<(), Error> {
        extern "C" fn ask<R: FnMut(usize) -> bool>(context: *mut c_void, position: usize) -> u8 {
            // SAFETY: `context` is the `ready` below, which nobody else uses during the call.
            u8::from(unsafe { &mut *context.cast::<R>() }(position))
        }
        self.step_some(update, (Some(ask::<R>), (&raw mut ready).cast()))
    }

    fn step_some(&mut self, update: &Update<'_>, (ready, context): (Option<Ready>, *mut c_void)) -> Result<(), Error> {
        let Update { grads, used, lr, found_inf } = *update;
        let given = [("gradients", grads.len()), ("used parameters", used.map_or(grads.len(), <[u8]>::len))];
        if let Some((what, found)) = given.into_iter().find(|(_, found)| *found != self.names.len()) {
            return Err(Error::Count { what, expected: self.names.len(), found });
        }
        let mut undefined = -1;
        let used = used.map_or(std::ptr::null(), <[u8]>::as_ptr);
        let found_inf = found_inf.map_or(std::ptr::null(), ffi::raw);
        let (grads, count) = (ffi::raw_list(grads), grads.len());
        // SAFETY: `raw` is ours, and nobody else uses it during the call; the lists have the given number of entries.
        ffi::check(unsafe {
            lte_optim_step(self.raw, grads, used, count, lr, found_inf, ready, context, &raw mut undefined)
        })?;
        match usize::try_from(undefined) {
            Ok(index) => Err(Error::NoGradient(self.names[index].clone())),
            Err(_) => Ok(()),
        }
    }

    /// The state by name: `step` (number of steps, a scalar of type `Float`), then for each parameter `momentum/<name>` for SGD with
    /// momentum, or `exp_avg/<name>` and `exp_avg_sq/<name>` for Adam and `AdamW`, in the shape of the parameter.
    ///
    /// The tensors share their storage with the optimizer, so the next step changes them. The list of names never changes.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        // SAFETY: `raw` is ours, and `push` takes the sink that is passed with it.
        let listed = ffi::collect_tensors(|push, sink| unsafe { lte_optim_state(self.raw, push, sink) });
        let listed = listed.expect("listing tensors takes nothing but memory");
        listed.into_iter().map(|(slot, tensor)| (self.public_name(&slot), tensor)).collect()
    }

    /// The number of steps that each parameter took part in, in the order of the parameters: `Int64` on the CPU. `None` if every
    /// parameter took part in every step. It is part of the state, with the name [`STEPS`].
    ///
    /// # Errors
    /// `Torch` if there is no memory.
    pub fn steps(&self) -> Result<Option<Tensor>, Error> {
        let (mut counts, mut taken) = (vec![0; self.names.len()], 0);
        // SAFETY: `raw` is ours, and `counts` has room for one number for each parameter.
        unsafe { lte_optim_counts(self.raw, &raw mut taken, counts.as_mut_ptr()) };
        let behind = counts.iter().any(|count| *count != taken);
        let tensor = behind.then(|| Tensor::f_from_slice(&counts)).transpose();
        tensor.map_err(|error| Error::Torch(error.to_string()))
    }

    /// Overwrites the state with copies of `saved`: the tensors of [`state`](Self::state) of an optimizer of the same kind and
    /// parameters, and its [`steps`](Self::steps), if there were any. They may be on any device.
    ///
    /// # Errors
    /// `StateMissing`, `StateUnknown`, `Mismatch`. Nothing has changed then.
    pub fn load_state(&mut self, saved: &[(String, Tensor)]) -> Result<(), Error> {
        let mut given: HashMap<&str, &Tensor> = saved.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let counts = given.remove(STEPS).map(|steps| self.counts_of(steps)).transpose()?;
        let mut pairs = Vec::new();
        for (name, own) in self.state() {
            let Some(tensor) = given.remove(name.as_str()) else { return Err(Error::StateMissing(name)) };
            if tensor.size() != own.size() || tensor.kind() != own.kind() {
                return Err(Error::Mismatch { name, expected: form(&own), found: form(tensor) });
            }
            pairs.push((own, tensor));
        }
        if let Some((name, _)) = saved.iter().find(|(name, _)| given.contains_key(name.as_str())) {
            return Err(Error::StateUnknown(name.clone()));
        }
        tch::no_grad(|| -> Result<(), Error> {
            for (mut own, tensor) in pairs {
                own.f_copy_(tensor).map_err(|error| Error::Torch(error.to_string()))?;
            }
            Ok(())
        })?;
        let counts = counts.as_ref().map_or(std::ptr::null(), Vec::as_ptr);
        // SAFETY: `raw` is ours, and nobody else uses it during the call; `counts` is null or has an entry for each parameter.
        ffi::check(unsafe { lte_optim_reloaded(self.raw, counts) })
    }

    fn counts_of(&self, steps: &Tensor) -> Result<Vec<i64>, Error> {
        let mismatch = || Error::Mismatch {
            name: STEPS.to_owned(),
            expected: format!("Int64 [{}]", self.names.len()),
            found: form(steps),
        };
        if steps.kind() != Dtype::Int64 || steps.size() != [self.names.len() as i64] {
            return Err(mismatch());
        }
        Vec::<i64>::try_from(steps).map_err(|error| Error::Torch(error.to_string()))
    }

    fn public_name(&self, slot: &str) -> String {
        let Some((list, position)) = slot.split_once('/') else { return slot.to_owned() };
        let list = match (self.kind, list) {
            (Kind::Sgd { .. }, _) => "momentum",
            (_, "first") => "exp_avg",
            _ => "exp_avg_sq",
        };
        let position: usize = position.parse().expect("the shim numbers parameters by position");
        format!("{list}/{}", self.names[position])
    }
}

impl Drop for Optimizer {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `lte_optim_new` and is freed once, here.
        unsafe { lte_optim_free(self.raw) };
    }
}

impl Kind {
    fn config(self) -> COptimConfig {
        let none =
            COptimConfig { kind: 0, momentum: 0.0, dampening: 0.0, nesterov: 0, beta1: 0.0, beta2: 0.0, epsilon: 0.0 };
        match self {
            Kind::Sgd { momentum, dampening, nesterov } => {
                COptimConfig { kind: 0, momentum, dampening, nesterov: u8::from(nesterov), ..none }
            }
            Kind::Adam { beta1, beta2, eps } => COptimConfig { kind: 1, beta1, beta2, epsilon: eps, ..none },
            Kind::AdamW { beta1, beta2, eps } => COptimConfig { kind: 2, beta1, beta2, epsilon: eps, ..none },
        }
    }
}

/// Element type and shape, for errors.
fn form(tensor: &Tensor) -> String {
    let kind: Dtype = tensor.kind();
    format!("{kind:?} {:?}", tensor.size())
}

/// An `lte_ready`.
type Ready = extern "C" fn(*mut c_void, usize) -> u8;

/// An `lte_optim`.
enum COptim {}

/// `lte_optim_config`.
#[repr(C)]
struct COptimConfig {
    kind: i32,
    momentum: f64,
    dampening: f64,
    nesterov: u8,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
}

unsafe extern "C" {
    fn lte_optim_new(
        config: *const COptimConfig,
        params: *const *const CTensor,
        weight_decays: *const f64,
        count: usize,
        out: *mut *mut COptim,
    ) -> *mut c_char;
    fn lte_optim_free(optim: *mut COptim);
    fn lte_optim_step(
        optim: *mut COptim,
        grads: *const *const CTensor,
        used: *const u8,
        count: usize,
        lr: f64,
        found_inf: *const CTensor,
        ready: Option<Ready>,
        context: *mut c_void,
        undefined: *mut i64,
    ) -> *mut c_char;
    fn lte_optim_state(optim: *const COptim, push: PushTensor, sink: *mut c_void) -> *mut c_char;
    fn lte_optim_counts(optim: *const COptim, taken: *mut i64, out: *mut i64);
    fn lte_optim_reloaded(optim: *mut COptim, counts: *const i64) -> *mut c_char;
}
