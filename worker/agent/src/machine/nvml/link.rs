//! Bytes over `NVLink`: a field value for all links together. nvml-wrapper can only read fields of one link.

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{field_id, nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG};

/// The value of `scopeId` for all links together.
const ALL_LINKS: u32 = u32::MAX;

/// Bytes sent and received since the driver was loaded; `None` for a device without `NVLink`.
///
/// Source: `NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX` and `_RX` in `nvml.h`, which count KiB.
#[expect(unsafe_code, reason = "nvml-wrapper does not wrap this C call")]
pub(super) fn bytes(nvml: &Nvml, device: &Device<'_>) -> Option<u64> {
    let ask = nvml.lib().nvmlDeviceGetFieldValues.as_ref().ok()?;
    let ids = [field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX];
    // SAFETY: all of a field value's members are numbers, for which zero is a value.
    let field = |id| nvmlFieldValue_t { fieldId: id, scopeId: ALL_LINKS, ..unsafe { std::mem::zeroed() } };
    let mut values = ids.map(field);
    // SAFETY: the handle is that of a device of this library, which lives as long as `device`; `values` are two.
    let done = unsafe { ask(device.handle(), values.len() as i32, values.as_mut_ptr()) };
    let kib = |value: &nvmlFieldValue_t| {
        let counted = value.valueType == nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        // SAFETY: all members of the union are numbers, and its memory was zeroed.
        (value.nvmlReturn == 0 && counted).then_some(unsafe { value.value.ullVal })
    };
    if done != 0 {
        return None;
    }
    values.iter().map(kib).sum::<Option<u64>>().map(|kib| kib.saturating_mul(1024))
}
