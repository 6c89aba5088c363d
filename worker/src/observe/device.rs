//! Names of devices, and the memory that their allocators hold.

use lockstep_rpc::DeviceReport;
use lockstep_tch_ext::memory::allocator_stats;
use tch::Device;

/// `cpu` or `cuda:N`, as assignments and manifests write it.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// Parses a name of [`device_name`]; `None` for anything else.
pub fn parse_device(name: &str) -> Option<Device> {
    match name.strip_prefix("cuda:") {
        Some(index) => index.parse().ok().map(Device::Cuda),
        None => (name == "cpu").then_some(Device::Cpu),
    }
}

pub(super) fn device_report(device: Device) -> Option<DeviceReport> {
    let Device::Cuda(index) = device else { return None };
    let stats = allocator_stats(index)?;
    Some(DeviceReport {
        name: device_name(device),
        allocated_bytes: stats.allocated,
        reserved_bytes: stats.reserved,
        peak_allocated_bytes: stats.peak_allocated,
        active_bytes: stats.active,
        allocation_retries: stats.retries,
        // The agent adds the readings of NVML.
        ..DeviceReport::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_assignments_name_them() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(11)] {
            assert_eq!(parse_device(&device_name(device)), Some(device));
        }
        for bad in ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1"] {
            assert_eq!(parse_device(bad), None, "{bad}");
        }
    }
}
