//! Memory seen from outside the tensors: raw bytes of CPU tensors, tensors over mapped memory, statistics of the CUDA
//! allocator.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor};

/// What libtorch's caching allocator holds on one CUDA device. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorStats {
    /// In tensors now.
    pub allocated: u64,
    /// Taken from the driver now, in use or cached.
    pub reserved: u64,
    /// In blocks that tensors or pending stream work use now.
    pub active: u64,
    /// The most that `allocated` was since the start.
    pub peak_allocated: u64,
    /// The most that `reserved` was since the start.
    pub peak_reserved: u64,
    /// Allocations that succeeded only after the cache was given back.
    pub retries: u64,
    /// Allocations that failed.
    pub ooms: u64,
}

/// The bytes of a contiguous CPU tensor, in row-major order and the machine's byte order: where they lie, not a copy.
///
/// # Errors
/// `NotOnCpu`, `NotContiguous`.
///
/// # Safety
/// Nobody writes to the tensor's memory while the slice lives. The borrow of the tensor does not say so: its clones and views, which
/// may be anywhere, have the same memory.
pub unsafe fn cpu_bytes(tensor: &Tensor) -> Result<&[u8], Error> {
    let (start, length) = locate(tensor)?;
    // SAFETY: libtorch says that these bytes are the tensor's elements, the tensor outlives the slice, and the caller promises that they
    // stay as they are.
    Ok(unsafe { std::slice::from_raw_parts(start, length) })
}

/// As [`cpu_bytes`], to write to. Other tensors in the same memory see what is written.
///
/// # Errors
/// `NotOnCpu`, `NotContiguous`.
///
/// # Safety
/// Nobody else reads or writes the tensor's memory while the slice lives, by whatever tensor.
pub unsafe fn cpu_bytes_mut(tensor: &mut Tensor) -> Result<&mut [u8], Error> {
    let (start, length) = locate(tensor)?;
    // SAFETY: as in `cpu_bytes`, and the caller promises that this slice is the only one.
    Ok(unsafe { std::slice::from_raw_parts_mut(start, length) })
}

/// A copy of a contiguous CPU tensor's bytes, in row-major order and the machine's byte order.
///
/// # Errors
/// `NotOnCpu`, `NotContiguous`.
pub fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, Error> {
    // SAFETY: the slice is copied at once: a thread that writes meanwhile would race with any operator that reads, too.
    Ok(unsafe { cpu_bytes(tensor) }?.to_vec())
}

/// Calls `see` with a copy of each `length` bytes of a contiguous CPU tensor, one after another; the last may be shorter.
///
/// # Errors
/// `NotOnCpu`, `NotContiguous`, before the first call.
pub fn each_piece(tensor: &Tensor, length: usize, mut see: impl FnMut(&[u8])) -> Result<(), Error> {
    let (start, all) = locate(tensor)?;
    let mut piece = vec![0; length.min(all)];
    for offset in (0..all).step_by(length.max(1)) {
        let count = piece.len().min(all - offset);
        // SAFETY: libtorch says that `all` bytes from `start` are the tensor's elements, which it holds while it is borrowed. They are
        // read as an operator reads them, and no reference to them is made.
        unsafe { std::ptr::copy_nonoverlapping(start.add(offset), piece.as_mut_ptr(), count) };
        see(&piece[..count]);
    }
    Ok(())
}

/// A new CPU tensor of this size and kind, whose bytes `fill` writes; they are zero before.
///
/// # Errors
/// Those of `fill`; `Torch`.
pub fn filled<E: From<Error>>(
    size: &[i64],
    kind: Kind,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Tensor, E> {
    let mut tensor = Tensor::f_zeros(size, (kind, Device::Cpu)).map_err(Error::from)?;
    // SAFETY: the tensor is new, and nobody else has it.
    fill(unsafe { cpu_bytes_mut(&mut tensor) }?)?;
    Ok(tensor)
}

/// Whether a tensor is plain elements in one memory: not sparse, quantized, or a view that negates or conjugates.
pub fn is_plain(tensor: &Tensor) -> bool {
    // SAFETY: the tensor lives during the call.
    unsafe { lte_is_plain(ffi::raw(tensor)) != 0 }
}

/// Whether both are one tensor object, not only two in the same memory.
pub fn is_same(one: &Tensor, other: &Tensor) -> bool {
    // SAFETY: both tensors live during the call.
    unsafe { lte_is_same(ffi::raw(one), ffi::raw(other)) != 0 }
}

/// A number for each tensor that changes when the tensor changes in anything but its elements: type, shape, strides, place in its
/// memory, and whether it requires gradients or has come of a computation that does. Nanoseconds each.
///
/// # Errors
/// `Torch`, for an undefined tensor.
pub fn forms(tensors: &[Tensor]) -> Result<Vec<u64>, Error> {
    let mut forms = vec![0; tensors.len()];
    // SAFETY: both lists have as many entries as is said and live during the call.
    ffi::check(unsafe { lte_forms(ffi::raw_list(tensors), tensors.len(), forms.as_mut_ptr()) })?;
    Ok(forms)
}

/// Copies the 1-D tensor `from` to `into`, of equal length and dtype, whatever their strides. As `copy_`, which for few
/// elements on the CPU takes much longer than they need.
///
/// # Errors
/// `Torch`, if one is not 1-D or they differ.
pub fn copy_few(from: &Tensor, into: &mut Tensor) -> Result<(), Error> {
    let (length, kind) = (from.size1()?, from.f_kind()?);
    let plain = |tensor: &Tensor| {
        tensor.device() == Device::Cpu && !tensor.is_sparse() && !tensor.is_neg() && !tensor.is_conj()
    };
    if !plain(from) || !plain(into) || (into.size1()?, into.f_kind()?) != (length, kind) {
        return Ok(into.f_copy_(from)?);
    }
    let (width, from_step, into_step) = (kind.elt_size_in_bytes(), from.stride()[0], into.stride()[0]);
    let (mut source, mut target) = (from.data_ptr().cast::<u8>().cast_const(), into.data_ptr().cast::<u8>());
    for _ in 0..length {
        // SAFETY: libtorch says that element `i` of a strided tensor of one dimension lies `i` strides behind its first;
        // the two may overlap only in whole elements.
        unsafe { std::ptr::copy(source, target, width) };
        source = source.wrapping_offset(from_step as isize * width as isize);
        target = target.wrapping_offset(into_step as isize * width as isize);
    }
    Ok(())
}

/// Copies `from` to `into`, if there is one; whether all elements of `from` are finite, as those of whole numbers are. One read of memory
/// where both are contiguous and on the CPU.
///
/// # Errors
/// `Torch`, for shapes that do not fit among others.
pub fn copy_finite(from: &Tensor, into: Option<&mut Tensor>) -> Result<bool, Error> {
    let (into, mut finite) = (into.map_or(std::ptr::null(), |into| ffi::raw(into)), 0);
    // SAFETY: the tensors live during the call, and so does the place for its answer.
    ffi::check(unsafe { lte_copy_finite(ffi::raw(from), into, &raw mut finite) })?;
    Ok(finite != 0)
}

/// A CPU tensor of `length` bytes in memory of its own, in huge pages where the system has them. They are zero, and there from the first
/// write on.
///
/// # Errors
/// `Torch`, if the system gives no memory.
pub fn pages(length: usize) -> Result<Tensor, Error> {
    let map = MmapOptions::new().len(length.max(1)).map_anon();
    let map = map.map_err(|error| Error::Torch(format!("cannot take {length} bytes of memory: {error}")))?;
    // Small pages do as well, if slower.
    #[cfg(target_os = "linux")]
    map.advise(memmap2::Advice::HugePage).ok();
    // SAFETY: the map is new, and nobody else has it.
    unsafe { tensor_over(Arc::new(map.into()), Kind::Uint8) }
}

/// The memory of `map` as a 1-D CPU tensor of `kind`, as long as whole elements fit. The tensor keeps the map.
///
/// Where the map can only be read, writing to the tensor kills the process.
///
/// # Errors
/// `Torch`.
///
/// # Safety
/// No reference to the map's bytes lives while the tensor or a view of it does. Where another process writes to the memory, the two
/// agree on times at which one writes and nobody reads.
pub unsafe fn tensor_over(map: Arc<MmapRaw>, kind: Kind) -> Result<Tensor, Error> {
    extern "C" fn drop_map(holder: *mut c_void) {
        // SAFETY: the box below, given back once.
        drop(unsafe { Box::from_raw(holder.cast::<Arc<MmapRaw>>()) });
    }
    let length = map.len() / kind.elt_size_in_bytes() * kind.elt_size_in_bytes();
    let data = map.as_mut_ptr();
    let holder = Box::into_raw(Box::new(map)).cast();
    let mut tensor = std::ptr::null_mut();
    // SAFETY: the map has `length` bytes at `data` for as long as `holder` lives, which libtorch gives back at the end.
    let made = ffi::check(unsafe { lte_tensor_over(data, length, holder, drop_map, &raw mut tensor) });
    if made.is_err() {
        drop_map(holder);
    }
    made?;
    // SAFETY: the shim made it for us.
    let bytes = unsafe { ffi::adopt(tensor) };
    Ok(bytes.f_view_dtype(kind)?)
}

/// The statistics of CUDA device `device_index`; `None` when there is no such device.
pub fn allocator_stats(device_index: usize) -> Option<AllocatorStats> {
    let device = i32::try_from(device_index).ok()?;
    let mut raw = CAllocatorStats::default();
    let mut found = 0;
    // SAFETY: both are places for the call to write to.
    ffi::check(unsafe { lte_allocator_stats_get(device, &raw mut raw, &raw mut found) }).ok()?;
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    (found != 0).then(|| AllocatorStats {
        allocated: count(raw.allocated),
        reserved: count(raw.reserved),
        active: count(raw.active),
        peak_allocated: count(raw.peak_allocated),
        peak_reserved: count(raw.peak_reserved),
        retries: count(raw.retries),
        ooms: count(raw.ooms),
    })
}

/// Where the bytes of `tensor` are; a valid, never null address, also for a tensor without elements.
fn locate(tensor: &Tensor) -> Result<(*mut u8, usize), Error> {
    let (mut start, mut length, mut kind) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: all three are places for the call to write to, and the tensor lives during it.
    ffi::check(unsafe { lte_cpu_bytes(ffi::raw(tensor), &raw mut start, &raw mut length, &raw mut kind) })?;
    match kind {
        0 if length == 0 => Ok((std::ptr::NonNull::dangling().as_ptr(), 0)),
        0 => Ok((start, length)),
        1 => Err(Error::NotOnCpu),
        _ => Err(Error::NotContiguous),
    }
}

/// Gives back what holds a tensor's memory.
type HolderDrop = extern "C" fn(*mut c_void);

/// `lte_allocator_stats`.
#[repr(C)]
#[derive(Default)]
struct CAllocatorStats {
    allocated: i64,
    reserved: i64,
    active: i64,
    peak_allocated: i64,
    peak_reserved: i64,
    retries: i64,
    ooms: i64,
}

unsafe extern "C" {
    fn lte_allocator_stats_get(device: i32, out: *mut CAllocatorStats, found: *mut i32) -> *mut c_char;
    fn lte_cpu_bytes(tensor: *const CTensor, data: *mut *mut u8, length: *mut usize, kind: *mut i32) -> *mut c_char;
    fn lte_copy_finite(from: *const CTensor, into: *const CTensor, finite: *mut u8) -> *mut c_char;
    fn lte_is_plain(tensor: *const CTensor) -> u8;
    fn lte_is_same(one: *const CTensor, other: *const CTensor) -> u8;
    fn lte_forms(tensors: *const *const CTensor, count: usize, out: *mut u64) -> *mut c_char;
    fn lte_tensor_over(
        data: *mut u8,
        length: usize,
        holder: *mut c_void,
        drop: HolderDrop,
        out: *mut *mut CTensor,
    ) -> *mut c_char;
}
