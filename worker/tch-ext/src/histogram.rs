//! How the elements of tensors are distributed: of any tensor, and of what a model's layers give while it runs forward.

use std::ffi::{c_char, c_void};

use lockstep_common::series::Histogram;
use tch::Tensor;

use crate::Error;
use crate::ffi::{self, CTensor};

/// The distribution of the elements of `tensor`, as floats of 32 bits; step and time are 0. One read of memory on the CPU,
/// tensor operations elsewhere.
///
/// # Errors
/// `Torch`, for an undefined tensor among others.
pub fn histogram_of(tensor: &Tensor) -> Result<Histogram, Error> {
    let mut raw = Box::new(CHistogram::EMPTY);
    // SAFETY: the tensor lives during the call, which writes to `raw` only.
    ffi::check(unsafe { lte_histogram_of(ffi::raw(tensor), &raw mut *raw) })?;
    Ok(convert(&raw))
}

/// How closely a forward pass is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What layers give: of a tensor with more elements than this, evenly spaced ones, at most so many.
    Layers(u32),
    /// All elements of what layers give; and among the layers stands the first operator of any kind that gave a NaN.
    Trace,
}

/// What an operator gave.
#[derive(Clone, Debug)]
pub struct Given {
    /// `relu`, `linear`, ..
    pub operator: String,
    /// Whether it is a layer.
    pub layer: bool,
    /// Where the first parameter that a layer was given begins in memory; 0: it was given none.
    pub parameter: usize,
    /// Of its output, the first if there are several. Step and time are 0.
    pub histogram: Histogram,
}

/// Runs `forward` and counts what each layer gives in it, in the order of the forward pass. A layer inside of another one is
/// not counted.
///
/// It looks at operators as libtorch's dispatcher meets them on this thread, so it sees models of every kind; no bit of what
/// they compute changes.
///
/// # Errors
/// `Torch`; also if called within itself.
pub fn watch_forward<T>(look: Look, forward: impl FnOnce() -> T) -> Result<(T, Vec<Given>), Error> {
    /// Ends the watch also if `forward` panics.
    struct Watching;
    impl Drop for Watching {
        fn drop(&mut self) {
            // Nothing is left to be told to anybody.
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
