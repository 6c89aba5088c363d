//! The devices that the node offers: its CPU, once for each slot, or its CUDA devices.

use std::fs;
use std::num::NonZeroUsize;

use lockstep_rpc::Device;

use crate::error::AgentError;
use crate::machine::nvml::Monitor;
use crate::options::{DeviceChoice, DeviceShare};

/// The devices to offer; each entry takes one process.
pub(crate) fn offered(
    choice: DeviceChoice,
    share: DeviceShare,
    slots: NonZeroUsize,
    monitor: Option<&Monitor>,
) -> Result<Vec<Device>, AgentError> {
    let cuda = monitor.map_or(&[][..], Monitor::devices);
    match choice {
        DeviceChoice::Cuda if cuda.is_empty() => Err(AgentError::NoCuda),
        DeviceChoice::Auto | DeviceChoice::Cuda if !cuda.is_empty() => {
            let own = cuda.iter().enumerate().filter(|(place, _)| share.has(*place));
            Ok(own.map(|(_, device)| device.clone()).collect())
        }
        _ => Ok(vec![cpu(); slots.get()]),
    }
}

fn cpu() -> Device {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let model = value(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned();
    let kib = value(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.strip_suffix("kB")?.trim().parse().ok());
    Device { name: "cpu".into(), model, memory_bytes: kib.map_or(0, |kib: u64| kib.saturating_mul(1024)) }
}

/// The first value of `key` in a file of `key: value` lines.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_offered_once_a_slot_and_cuda_is_not_made_up() {
        let slots = NonZeroUsize::new(3).unwrap();
        let devices = offered(DeviceChoice::Auto, DeviceShare::WHOLE, slots, None).unwrap();
        assert_eq!(devices.len(), 3);
        assert!(devices.iter().all(|device| device.name == "cpu" && device.memory_bytes > 1 << 20), "{devices:?}");
        assert!(matches!(offered(DeviceChoice::Cuda, DeviceShare::WHOLE, slots, None), Err(AgentError::NoCuda)));
    }
}
