//! Fused optimizers: SGD, Adam and AdamW through the kernels that `torch.optim` takes with `fused=True`, so that the
//! bits are PyTorch's, with their state as named tensors.
//!
//! Hot: a step builds no list of tensors; gradients go into lists that are kept.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};

use tch::{Kind as Dtype, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor, PushTensor};

/// Name of [`Optimizer::steps`] in a saved state.
pub const STEPS: &str = "steps";

/// Which optimizer, and what stays the same over a run. The learning rate comes with each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Stochastic gradient descent, `torch.optim.SGD`.
    Sgd {
        /// Share of the previous update that is kept; 0 keeps no state.
        momentum: f64,
        /// Share of the gradient that momentum does not take, from the second step on.
        dampening: f64,
        /// Look ahead along the momentum; needs momentum and no dampening.
        nesterov: bool,
    },
    /// `torch.optim.Adam`: weight decay is added to the gradient.
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
    },
    /// `torch.optim.AdamW`: weight decay acts on the weights themselves.
    AdamW {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
    },
}

/// What one step takes.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// In the order of the parameters, each in its parameter's shape and dtype.
    pub grads: &'a [Tensor],
    /// Which parameters take part: those whose byte is not 0; all without it. The others keep their value, their moments and
    /// their count of steps, as with `torch.optim` a parameter does whose `grad` is None.
    pub used: Option<&'a [u8]>,
    /// Learning rate of this step.
    pub lr: f64,
    /// One 32-bit float beside the parameters. With 1 in it, parameters, moments and the count of steps on the device stay as
    /// they are; the host's counts do not, so no other step may follow. With 0 it changes nothing.
    pub found_inf: Option<&'a Tensor>,
}

impl<'a> Update<'a> {
    /// All parameters take part, whatever their gradients hold.
    pub fn all(grads: &'a [Tensor], lr: f64) -> Self {
        Self { grads, used: None, lr, found_inf: None }
    }
}

/// An optimizer over a fixed list of parameters, all on one device.
///
/// It holds the parameters (their storage, not copies) and changes them in place.
#[derive(Debug)]
pub struct Optimizer {
    raw: *mut COptim,
    kind: Kind,
    names: Vec<String>,
}

// SAFETY: the C++ object is plain data and tensors, which `tch` itself holds to be sendable; it belongs to no thread.
unsafe impl Send for Optimizer {}

impl Optimizer {
    /// An optimizer of `kind` over parameters given as name, tensor and weight decay.
    ///
    /// Tensors of equal weight decay and dtype share one fused call. The state starts at zero.
    ///
    /// # Errors
    /// `Torch` if the parameters are on several devices.
    #[expect(clippy::needless_pass_by_value, reason = "the optimizer takes a share in the parameters")]
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
    /// `Count` and `NoGradient` before anything changed; `Torch` for shapes that do not fit, likewise before.
    pub fn step(&mut self, update: &Update<'_>) -> Result<(), Error> {
        self.step_some(update, (None, std::ptr::null_mut()))
    }

    /// The same, a few parameters at a time, with the same bits. Before a parameter and its state change, `ready` is called with its
    /// position, and may wait. Where it says false the step ends, and some parameters have made it.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step_when<R: FnMut(usize) -> bool>(&mut self, update: &Update<'_>, mut ready: R) -> Result<(), Error> {
        extern "C" fn ask<R: FnMut(usize) -> bool>(context: *mut c_void, position: usize) -> u8 {
            // SAFETY: `context` is the `ready` below, which nobody else touches during the call.
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
        // SAFETY: `raw` is ours and used by nobody else during the call; the lists have as many entries as is said.
        ffi::check(unsafe {
            lte_optim_step(self.raw, grads, used, count, lr, found_inf, ready, context, &raw mut undefined)
        })?;
        match usize::try_from(undefined) {
            Ok(index) => Err(Error::NoGradient(self.names[index].clone())),
            Err(_) => Ok(()),
        }
    }

    /// The state by name: `step` (a scalar of 32-bit floats, steps taken), then per parameter `momentum/<name>` for
    /// SGD with momentum, `exp_avg/<name>` and `exp_avg_sq/<name>` for Adam and `AdamW`, shaped like the parameter.
    ///
    /// The tensors are the optimizer's own: the next step changes them. The names are the same from the start on.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        // SAFETY: `raw` is ours, and `push` takes the sink that is passed with it.
        let listed = ffi::collect_tensors(|push, sink| unsafe { lte_optim_state(self.raw, push, sink) });
        let listed = listed.expect("listing tensors takes nothing but memory");
        listed.into_iter().map(|(slot, tensor)| (self.public_name(&slot), tensor)).collect()
    }

    /// The number of steps that each parameter took part in, in the order of the parameters: 64-bit integers on the CPU.
    /// None while all took part in every step. It is a part of the state, under the name [`STEPS`].
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

    /// Overwrites the state with what [`state`](Self::state) gave of an optimizer of the same kind and parameters, and
    /// with [`steps`](Self::steps), if there were any. The tensors are copied, from any device.
    ///
    /// # Errors
    /// `StateMissing`, `StateUnknown`, `Mismatch`, all before anything changed.
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
        // SAFETY: `raw` is ours and used by nobody else during the call; `counts` is null or has one for each parameter.
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

/// Dtype and shape, as errors name them.
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
