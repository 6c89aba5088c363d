//! CUDA devices and their readings, from NVML, which is loaded at run time. A separate thread samples, so that a driver
//! that hangs does not stop the agent.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::{Device, EncodedBlock, ReportBlock, Series};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, EventSet, Nvml};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::error::AgentError;

mod link;

/// Pause between samples. NVML itself averages utilisation over a sixth of a second to a second.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The name that the driver installs. The name without a version comes with development packages only.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";
/// Prefix of a device's name, before its number.
const PREFIX: &str = "cuda:";

/// Stands for an error without a number, as in NVML itself.
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
    /// Bit mask of `nvmlClocksThrottleReasons`.
    throttle_reasons: Option<u64>,
    /// Uncorrected errors since the driver was loaded.
    ecc_errors: Option<u64>,
    /// Bytes sent and received since the driver was loaded.
    nvlink_bytes: Option<u64>,
    /// Number of the last XID error since the agent's start.
    xid: Option<u64>,
}

type Readings = BTreeMap<String, Reading>;

impl Reading {
    /// The present readings, with the names of their series.
    fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let whole = |value: Option<u64>| value.map(|value| value as f64);
        [
            ("device/utilisation", self.utilisation),
            ("device/memory_used_bytes", whole(self.used_bytes)),
            ("device/power_watts", self.power_watts),
            ("device/temperature_celsius", self.temperature_celsius),
            ("device/sm_clock_mhz", self.sm_clock_mhz),
            ("device/memory_clock_mhz", self.memory_clock_mhz),
            ("device/throttle_reasons", whole(self.throttle_reasons)),
            ("device/ecc_errors", whole(self.ecc_errors)),
            ("device/nvlink_bytes", whole(self.nvlink_bytes)),
            ("device/xid", whole(self.xid)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// The readings of one process's device, as blocks that the agent inserts into the process's reports.
#[derive(Debug)]
pub(crate) struct Feed {
    device: String,
    process: u32,
    readings: watch::Receiver<Readings>,
}

impl Feed {
    /// A block with the readings at `step`; `None` if there is no new sample since the last call, or no reading.
    pub(crate) fn next(&mut self, step: u64) -> Option<EncodedBlock> {
        if !self.readings.has_changed().unwrap_or(false) {
            return None;
        }
        let readings = self.readings.borrow_and_update();
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let series =
            |(name, value)| Series::of_points(&SeriesKey::part(name, self.process), &[Point { step, at_ms, value }]);
        let series: Vec<Series> = readings.get(&self.device)?.named().map(series).collect();
        let block = ReportBlock { process: self.process, series, ..ReportBlock::default() };
        (!block.is_empty()).then(|| EncodedBlock::of(block))
    }
}

/// The node's CUDA devices, sampled once a second while this value lives.
#[derive(Debug)]
pub(crate) struct Monitor {
    devices: Vec<Device>,
    readings: watch::Receiver<Readings>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Loads `library`, where a failure is an error, or the system's library, where it gives `None`. `visible` is the value of
    /// `CUDA_VISIBLE_DEVICES`.
    pub(crate) fn open(library: Option<&Path>, visible: Option<&str>) -> Result<Option<Self>, AgentError> {
        let opened = load(library.map_or(OsStr::new(DEFAULT_LIBRARY), Path::as_os_str), visible);
        match (opened, library) {
            (Ok((nvml, devices)), _) => Ok(Some(Self::watch(nvml, devices))),
            (Err(source), Some(path)) => Err(AgentError::Nvml { path: path.to_owned(), source }),
            (Err(error), None) => {
                debug!("no CUDA devices: cannot use `{DEFAULT_LIBRARY}`: {error}");
                Ok(None)
            }
        }
    }

    /// All visible devices, named `cuda:N` by NVML's index.
    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The readings of `device` from now on, for `process`, an index in its generation.
    pub(crate) fn feed(&self, device: &str, process: u32) -> Feed {
        let mut readings = self.readings.clone();
        readings.mark_changed();
        Feed { device: device.to_owned(), process, readings }
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

/// Whether `CUDA_VISIBLE_DEVICES` names a device, by its number or a prefix of its UUID. As in CUDA, entries after the first
/// invalid one do not count.
fn names(visible: &str, index: u32, uuid: &str) -> bool {
    let entries = visible.split(',').map(str::trim);
    let mut known = entries.take_while(|entry| entry.parse::<u32>().is_ok() || entry.starts_with("GPU-"));
    known.any(|entry| entry.parse() == Ok(index) || entry.len() > "GPU-".len() && uuid.starts_with(entry))
}

/// The number `N` of a name `cuda:N`.
fn index_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Subscribes to errors of the devices (NVIDIA's XIDs); `None` if the driver does not support it.
fn listen<'nvml>(nvml: &'nvml Nvml, names: &[String]) -> Option<EventSet<'nvml>> {
    let register = |set, name: &String| {
        let device = nvml.device_by_index(index_of(name).ok_or(NvmlError::InvalidArg)?)?;
        device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|error| error.error)
    };
    let set = nvml.create_event_set().and_then(|set| names.iter().try_fold(set, register));
    set.inspect_err(|error| debug!("cannot subscribe to XID errors of devices: {error}")).ok()
}

/// Reads all errors that have arrived, without waiting. `xids` gets the last one of each device.
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
