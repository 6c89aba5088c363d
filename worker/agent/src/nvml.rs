//! CUDA devices and their readings, from NVML, which is loaded at run time. A thread of its own samples: a driver that
//! hangs must not stop the agent.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lockstep_rpc::{Device, DeviceReport, ReportBlock};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, EventSet, Nvml};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::error::AgentError;

mod link;

/// NVML itself averages utilisation over a sixth of a second to a second.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The name that the driver installs; the one without a version comes with development packages only.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";
/// What stands before a device's number in its name.
const PREFIX: &str = "cuda:";

/// What NVML itself says for an error that it cannot name.
const UNKNOWN_XID: u64 = 999;

/// The latest readings of one device. A reading that the device does not give is absent.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    utilisation: Option<f64>,
    used_bytes: Option<u64>,
    power_watts: Option<f64>,
    temperature_celsius: Option<f64>,
    sm_clock_mhz: Option<f64>,
    memory_clock_mhz: Option<f64>,
    /// NVML's bits.
    throttle_reasons: Option<u64>,
    /// Uncorrected, since the driver began.
    ecc_errors: Option<u64>,
    /// Sent and received since the driver began.
    nvlink_bytes: Option<u64>,
    /// The last one since the agent began.
    xid: Option<u64>,
}

type Readings = BTreeMap<String, Reading>;

/// The node's CUDA devices, watched while this value lives.
#[derive(Debug)]
pub(crate) struct Monitor {
    devices: Vec<Device>,
    readings: watch::Receiver<Readings>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Loads `library`, or the system's; `None` if the system has none. `visible` is `CUDA_VISIBLE_DEVICES`.
    pub(crate) fn open(library: Option<&Path>, visible: Option<&str>) -> Result<Option<Self>, AgentError> {
        let opened = load(library.map_or(OsStr::new(DEFAULT_LIBRARY), Path::as_os_str), visible);
        match (opened, library) {
            (Ok((nvml, devices)), _) => Ok(Some(Self::watch(nvml, devices))),
            (Err(source), Some(path)) => Err(AgentError::Nvml { path: path.to_owned(), source }),
            (Err(error), None) => {
                debug!("no NVML: {error}");
                Ok(None)
            }
        }
    }

    /// Every visible device, `cuda:N` by NVML's numbers.
    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Adds the latest readings of `device` to every system report of `block`.
    pub(crate) fn complete(&self, device: &str, block: &mut ReportBlock) {
        let readings = self.readings.borrow();
        let Some(reading) = readings.get(device) else { return };
        for system in &mut block.systems {
            let report =
                system.device.get_or_insert_with(|| DeviceReport { name: device.into(), ..Default::default() });
            report.utilisation = reading.utilisation;
            report.used_bytes = reading.used_bytes;
            report.power_watts = reading.power_watts;
            report.temperature_celsius = reading.temperature_celsius;
            report.sm_clock_mhz = reading.sm_clock_mhz;
            report.memory_clock_mhz = reading.memory_clock_mhz;
            report.throttle_reasons = reading.throttle_reasons;
            report.ecc_errors = reading.ecc_errors;
            report.nvlink_bytes = reading.nvlink_bytes;
            report.xid = reading.xid;
        }
    }

    fn watch(nvml: Nvml, devices: Vec<Device>) -> Self {
        let names: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
        let (publish, readings) = watch::channel(sample(&nvml, &names, &BTreeMap::new()));
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let errors = listen(&nvml, &names);
            let mut xids = BTreeMap::new();
            while stopped.recv_timeout(SAMPLE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Some(errors) = &errors {
                    note_errors(errors, &mut xids);
                }
                publish.send_replace(sample(&nvml, &names, &xids));
            }
        });
        Self { devices, readings, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn load(library: &OsStr, visible: Option<&str>) -> Result<(Nvml, Vec<Device>), NvmlError> {
    let nvml = Nvml::builder().lib_path(library).init()?;
    let mut devices = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        if visible.is_none_or(|visible| names(visible, index, &device.uuid().unwrap_or_default())) {
            let (model, memory_bytes) = (device.name()?, device.memory_info()?.total);
            devices.push(Device { name: format!("{PREFIX}{index}"), model, memory_bytes });
        }
    }
    Ok((nvml, devices))
}

/// Whether `CUDA_VISIBLE_DEVICES` names a device: by its number, or by its UUID, which may be cut short. As CUDA does, it
/// stops reading at what is neither.
fn names(visible: &str, index: u32, uuid: &str) -> bool {
    let entries = visible.split(',').map(str::trim);
    let mut known = entries.take_while(|entry| entry.parse::<u32>().is_ok() || entry.starts_with("GPU-"));
    known.any(|entry| entry.parse() == Ok(index) || entry.len() > "GPU-".len() && uuid.starts_with(entry))
}

/// The number of `cuda:N`.
fn index_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Where errors of the devices, NVIDIA's *XID*s, arrive; `None` where the driver tells of none.
fn listen<'nvml>(nvml: &'nvml Nvml, names: &[String]) -> Option<EventSet<'nvml>> {
    let register = |set, name: &String| {
        let device = nvml.device_by_index(index_of(name).ok_or(NvmlError::InvalidArg)?)?;
        device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|error| error.error)
    };
    let set = nvml.create_event_set().and_then(|set| names.iter().try_fold(set, register));
    set.inspect_err(|error| debug!("the driver tells of no device errors: {error}")).ok()
}

/// Takes what has arrived, without waiting. `xids`: the last one by device.
fn note_errors(errors: &EventSet<'_>, xids: &mut BTreeMap<String, u64>) {
    while let Ok(event) = errors.wait(0) {
        let (Some(error), Ok(index)) = (event.event_data, event.device.index()) else { continue };
        let xid = match error {
            XidError::Value(xid) => xid,
            XidError::Unknown => UNKNOWN_XID,
        };
        let name = format!("{PREFIX}{index}");
        warn!("device {name} reports error XID {xid}");
        xids.insert(name, xid);
    }
}

fn sample(nvml: &Nvml, names: &[String], xids: &BTreeMap<String, u64>) -> Readings {
    let read = |name: &String| {
        let index = index_of(name)?;
        let device = nvml.device_by_index(index);
        let device = device.inspect_err(|error| debug!("cannot read device {index}: {error}")).ok()?;
        Some((name.clone(), Reading { xid: xids.get(name).copied(), ..reading(nvml, &device) }))
    };
    names.iter().filter_map(read).collect()
}

fn reading(nvml: &Nvml, device: &Handle<'_>) -> Reading {
    let clock = |of| device.clock_info(of).ok().map(f64::from);
    Reading {
        utilisation: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        used_bytes: device.memory_info().ok().map(|memory| memory.used),
        power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        sm_clock_mhz: clock(Clock::SM),
        memory_clock_mhz: clock(Clock::Memory),
        throttle_reasons: device.current_throttle_reasons().ok().map(|reasons| reasons.bits()),
        ecc_errors: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        nvlink_bytes: link::bytes(nvml, device),
        xid: None,
    }
}

#[cfg(test)]
mod tests;
