//! Distributions of the elements of tensors, and of the activations of a model's forward pass.

use std::ffi::{c_char, c_void};

use lockstep_common::series::Histogram;
use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// The distribution of the elements of `tensor`, converted to 32-bit floats; step and time are 0. On the CPU it takes one read of the
/// memory, elsewhere tensor operations.
///
/// # Errors
/// `Torch`, for example for an undefined tensor.
pub fn histogram_of(tensor: &Tensor) -> Result<Histogram, Error> {
    let mut raw = Box::new(CHistogram::EMPTY);
    // SAFETY: the tensor lives during the call, which writes to `raw` only.
    ffi::check(unsafe { lte_histogram_of(ffi::raw(tensor), &raw mut *raw) })?;
    Ok(convert(&raw))
}

/// How much of a forward pass is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The activations of layers. Of a larger tensor, at most this many evenly spaced elements are counted.
    Layers(u32),
    /// All elements of the activations of layers, and the output of the first operator of any kind that returned a NaN.
    Trace,
}

/// The output of an operator in a forward pass.
#[derive(Clone, Debug)]
pub struct Given {
    /// Name of the operator, for example `relu` or `linear`.
    pub operator: String,
    /// Whether the operator is a layer.
    pub layer: bool,
    /// Address of the first parameter that was passed to a layer; 0 if there was none.
    pub parameter: usize,
    /// Distribution of the output; of the first one if there are several. Step and time are 0.
    pub histogram: Histogram,
}

/// Runs `forward`, and returns the distributions of the activations of its layers, in the order of the forward pass. A layer inside another
/// layer is not counted.
///
/// It watches the operators that libtorch's dispatcher runs on this thread, so it works with models of every kind. The computed bits do not
/// change.
///
/// # Errors
/// `Torch`, also for a nested call.
pub fn watch_forward<T>(look: Look, forward: impl FnOnce() -> T) -> Result<(T, Vec<Given>), Error> {
    /// Ends the watch if `forward` panics.
    struct Watching;
    impl Drop for Watching {
        fn drop(&mut self) {
            // The outputs that were seen are dropped.
            let _ = seen();
        }
    }
    let most = match look {
        Look::Layers(most) => i64::from(most.max(1)),
        Look::Trace => 0,
    };
    // SAFETY: takes a number.
    ffi::check(unsafe { lte_forward_watch(most) })?;
    let watching = Watching;
    let given = forward();
    std::mem::forget(watching);
    Ok((given, seen()?))
}

fn seen() -> Result<Vec<Given>, Error> {
    extern "C" fn push(
        sink: *mut c_void,
        name: *const c_char,
        length: usize,
        layer: bool,
        parameter: *const c_void,
        raw: *const CHistogram,
    ) {
        // SAFETY: `sink` is the list below; name and histogram live during the call.
        let (sink, name, raw) =
            unsafe { (&mut *sink.cast::<Vec<Given>>(), std::slice::from_raw_parts(name.cast::<u8>(), length), &*raw) };
        let operator = String::from_utf8_lossy(name).into_owned();
        sink.push(Given { operator, layer, parameter: parameter.addr(), histogram: convert(raw) });
    }
    let mut found: Vec<Given> = Vec::new();
    // SAFETY: the list lives during the call, and nobody else has it.
    ffi::check(unsafe { lte_forward_seen(push, (&raw mut found).cast()) })?;
    Ok(found)
}

fn convert(raw: &CHistogram) -> Histogram {
    let filled = (0_u16..).zip(raw.bins).filter(|(_, count)| *count > 0);
    Histogram {
        step: 0,
        at_ms: 0,
        count: raw.count,
        zeros: raw.zeros,
        nans: raw.nans,
        infs: raw.infs,
        min: raw.min,
        max: raw.max,
        mean: raw.mean,
        std: raw.std,
        bins: filled.collect(),
    }
}

/// `lte_histogram`.
#[repr(C)]
struct CHistogram {
    count: u64,
    zeros: u64,
    nans: u64,
    infs: u64,
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    bins: [u64; 2048],
}

impl CHistogram {
    const EMPTY: Self =
        Self { count: 0, zeros: 0, nans: 0, infs: 0, min: 0.0, max: 0.0, mean: 0.0, std: 0.0, bins: [0; 2048] };
}

/// Takes one named histogram, borrowed for the call.
type PushHistogram = extern "C" fn(*mut c_void, *const c_char, usize, bool, *const c_void, *const CHistogram);

unsafe extern "C" {
    fn lte_histogram_of(tensor: *const CTensor, out: *mut CHistogram) -> *mut c_char;
    fn lte_forward_watch(most: i64) -> *mut c_char;
    fn lte_forward_seen(push: PushHistogram, sink: *mut c_void) -> *mut c_char;
}
