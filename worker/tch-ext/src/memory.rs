//! The memory of tensors: raw bytes of CPU tensors, tensors over mapped memory, and statistics of the CUDA allocator.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::ffi::{self, CTensor};

/// The memory that libtorch's caching allocator holds on one CUDA device. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorStats {
    /// Memory of tensors.
    pub allocated: u64,
    /// Memory that was taken from the driver, in use or cached.
    pub reserved: u64,
    /// Memory of blocks that tensors or pending work of streams use.
    pub active: u64,
    /// Maximum of `allocated` since the start.
    pub peak_allocated: u64,
    /// Maximum of `reserved` since the start.
    pub peak_reserved: u64,
    /// Number of allocations that succeeded only after the cache was returned to the driver.
    pub retries: u64,
    /// Number of allocations that failed.
    pub ooms: u64,
}

/// The bytes of a contiguous CPU tensor, in row-major order and the machine's byte order. Not a copy.
///
/// # Errors
/// `NotOnCpu`, `NotContiguous`.
///
/// # Safety
/// Nobody may write to the tensor's memory while the slice lives. The borrow of the tensor does not guarantee it, because clones and views
/// of the tensor have the same memory.
pub unsafe fn cpu_bytes(tensor: &Tensor) -> Result<&[u8], Error> {
    let (start, length) = locate(tensor)?;
    // SAFETY: according to libtorch these bytes are the tensor's elements. The tensor outlives the slice, and the caller promises that
    // nobody changes them.
    Ok(unsafe { std::slice::from_raw_parts(start, length) })
}

/// As [`cpu_bytes`], but mutable. Other tensors with the same memory see the changes.
///
/// # Errors
/// `NotOnCpu`, `NotContiguous`.
///
/// # Safety
/// Nobody else may read or write the tensor's memory while the slice lives, through any tensor.
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
    // SAFETY: the slice is copied at once. A thread that writes at the same time would also race with any operator that reads.
    Ok(unsafe { cpu_bytes(tensor) }?.to_vec())
}

/// Calls `see` with copies of consecutive pieces of a contiguous CPU tensor. A piece has `length` bytes; the last one may be shorter.
///
/// # Errors
/// `NotOnCpu`, `NotContiguous`, before the first call.
pub fn each_piece(tensor: &Tensor, length: usize, mut see: impl FnMut(&[u8])) -> Result<(), Error> {
    let (start, all) = locate(tensor)?;
    let mut piece = vec![0; length.min(all)];
    for offset in (0..all).step_by(length.max(1)) {
        let count = piece.len().min(all - offset);
        // SAFETY: according to libtorch the `all` bytes from `start` are the tensor's elements, which live while the tensor is borrowed.
        // They are read as an operator reads them, and no reference to them is created.
        unsafe { std::ptr::copy_nonoverlapping(start.add(offset), piece.as_mut_ptr(), count) };
        see(&piece[..count]);
    }
    Ok(())
}

/// A new CPU tensor of this size and kind, whose bytes `fill` writes. They are zero before.
///
/// # Errors
/// Those of `fill`; `Torch`.
pub fn filled<E: From<Error>>(
    size: &[i64],
    kind: Kind,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Tensor, E> {
    let mut tensor = Tensor::f_zeros(size, (kind, Device::Cpu)).map_err(Error::from)?;
    // SAFETY: the tensor is new, so nobody else has it.
    fill(unsafe { cpu_bytes_mut(&mut tensor) }?)?;
    Ok(tensor)
}

/// Whether a tensor consists of plain elements in one memory: it is not sparse, not quantized, and no view that negates or conjugates.
pub fn is_plain(tensor: &Tensor) -> bool {
    // SAFETY: the tensor lives during the call.
    unsafe { lte_is_plain(ffi::raw(tensor)) != 0 }
}

/// Whether both are the same tensor object, not only tensors with the same memory.
pub fn is_same(one: &Tensor, other: &Tensor) -> bool {
    // SAFETY: both tensors live during the call.
    unsafe { lte_is_same(ffi::raw(one), ffi::raw(other)) != 0 }
}

/// A number for each tensor that changes if any property but its elements changes: type, shape, strides, offset in its memory, whether it
/// requires gradients, and whether it is a leaf. Takes nanoseconds for each tensor.
///
/// # Errors
/// `Torch`, for an undefined tensor.
pub fn forms(tensors: &[Tensor]) -> Result<Vec<u64>, Error> {
    let mut forms = vec![0; tensors.len()];
    // SAFETY: both lists have the given number of entries, and live during the call.
    ffi::check(unsafe { lte_forms(ffi::raw_list(tensors), tensors.len(), forms.as_mut_ptr()) })?;
    Ok(forms)
}

/// Copies the 1-D tensor `from` to `into`, which must have the same length and element type, but may have other strides. Does the same as
/// `copy_`, without the overhead of `copy_` that dominates for few elements on the CPU.
///
/// # Errors
/// `Torch` if a tensor is not 1-D, or if lengths or types differ and `copy_` does not support it.
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
        // SAFETY: according to libtorch, element `i` of a strided tensor with one dimension is `i` strides behind the first element.
        // The two may overlap in whole elements only.
        unsafe { std::ptr::copy(source, target, width) };
        source = source.wrapping_offset(from_step as isize * width as isize);
        target = target.wrapping_offset(into_step as isize * width as isize);
    }
    Ok(())
}

/// Copies `from` to `into`, if that is given, and returns whether all elements of `from` are finite; integers are. If both tensors are
/// contiguous and on the CPU, it takes one read of the memory.
///
/// # Errors
/// `Torch`, for example for shapes that do not fit.
pub fn copy_finite(from: &Tensor, into: Option<&mut Tensor>) -> Result<bool, Error> {
    let (into, mut finite) = (into.map_or(std::ptr::null(), |into| ffi::raw(into)), 0);
    // SAFETY: the tensors and the address of the result live during the call.
    ffi::check(unsafe { lte_copy_finite(ffi::raw(from), into, &raw mut finite) })?;
    Ok(finite != 0)
}

/// A CPU tensor of `length` bytes in a new memory map, with huge pages if the system has them. The bytes are zero; the system allocates a
/// page at the first write to it.
///
/// # Errors
/// `Torch` if the system has no memory.
pub fn pages(length: usize) -> Result<Tensor, Error> {
    let map = MmapOptions::new().len(length.max(1)).map_anon();
    let map = map.map_err(|error| Error::Torch(format!("cannot allocate {length} bytes of memory: {error}")))?;
    // Small pages work, too, but slower.
    #[cfg(target_os = "linux")]
    map.advise(memmap2::Advice::HugePage).ok();
    // SAFETY: the map is new, so nobody else has it.
    unsafe { tensor_over(Arc::new(map.into()), Kind::Uint8) }
}

/// The memory of `map` as a 1-D CPU tensor of `kind`, with as many whole elements as fit. The tensor keeps the map alive.
///
/// If the map is read-only, a write to the tensor kills the process.
///
/// # Errors
/// `Torch`.
///
/// # Safety
/// No reference to the map's bytes may live while the tensor or a view of it lives. If another process writes to the memory, the processes
/// must synchronise, so that nobody reads during a write.
pub unsafe fn tensor_over(map: Arc<MmapRaw>, kind: Kind) -> Result<Tensor, Error> {
    extern "C" fn drop_map(holder: *mut c_void) {
        // SAFETY: the box below, which libtorch gives back once.
        drop(unsafe { Box::from_raw(holder.cast::<Arc<MmapRaw>>()) });
    }
    let length = map.len() / kind.elt_size_in_bytes() * kind.elt_size_in_bytes();
    let data = map.as_mut_ptr();
    let holder = Box::into_raw(Box::new(map)).cast();
    let mut tensor = std::ptr::null_mut();
    // SAFETY: the map has `length` bytes at `data` as long as `holder` lives, which libtorch gives back at the end.
    let made = ffi::check(unsafe { lte_tensor_over(data, length, holder, drop_map, &raw mut tensor) });
    if made.is_err() {
        drop_map(holder);
    }
    made?;
    // SAFETY: the shim created it and passed on its ownership.
    let bytes = unsafe { ffi::adopt(tensor) };
    Ok(bytes.f_view_dtype(kind)?)
}

/// The statistics of CUDA device `device_index`; `None` if there is no such device.
pub fn allocator_stats(device_index: usize) -> Option<AllocatorStats> {
    let device = i32::try_from(device_index).ok()?;
    let mut raw = CAllocatorStats::default();
    let mut found = 0;
    // SAFETY: both are addresses for the call to write to.
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

/// Address and length of the bytes of `tensor`. The address is never null, also for a tensor without elements.
fn locate(tensor: &Tensor) -> Result<(*mut u8, usize), Error> {
    let (mut start, mut length, mut kind) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: all three are addresses for the call to write to, and the tensor lives during the call.
    ffi::check(unsafe { lte_cpu_bytes(ffi::raw(tensor), &raw mut start, &raw mut length, &raw mut kind) })?;
    match kind {
        0 if length == 0 => Ok((std::ptr::NonNull::dangling().as_ptr(), 0)),
        0 => Ok((start, length)),
        1 => Err(Error::NotOnCpu),
        _ => Err(Error::NotContiguous),
    }
}

/// Drops the owner of a tensor's memory.
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
