//! CUDA devices and their readings, from NVML, which is loaded at run time. A thread of its own samples: a driver that
//! hangs must not stop the agent.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lockstep_rpc::{Device, DeviceReport, ReportBlock};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use tokio::sync::watch;
use tracing::debug;

use crate::error::AgentError;

/// NVML itself averages utilisation over a sixth of a second to a second.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The name that the driver installs; the one without a version comes with development packages only.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";
/// What stands before a device's number in its name.
const PREFIX: &str = "cuda:";

/// The latest readings of one device. A reading that the device does not give is absent.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    utilisation: Option<f64>,
    used_bytes: Option<u64>,
    power_watts: Option<f64>,
    temperature_celsius: Option<f64>,
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
        }
    }

    fn watch(nvml: Nvml, devices: Vec<Device>) -> Self {
        let names: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
        let (publish, readings) = watch::channel(sample(&nvml, &names));
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(SAMPLE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                publish.send_replace(sample(&nvml, &names));
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

fn sample(nvml: &Nvml, names: &[String]) -> Readings {
    let index = |name: &String| name.strip_prefix(PREFIX)?.parse().ok();
    names.iter().filter_map(|name| Some((name.clone(), reading(nvml, index(name)?)?))).collect()
}

fn reading(nvml: &Nvml, index: u32) -> Option<Reading> {
    let device = nvml.device_by_index(index).inspect_err(|error| debug!("cannot read device {index}: {error}")).ok()?;
    Some(Reading {
        utilisation: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        used_bytes: device.memory_info().ok().map(|memory| memory.used),
        power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use lockstep_rpc::SystemReport;

    use super::*;
    use crate::devices;
    use crate::options::{DeviceChoice, DeviceShare};

    /// NVML with two devices, written for this test: the second has no power reading (`NVML_ERROR_NOT_SUPPORTED`), and
    /// the utilisation rises with each question.
    const LIBRARY: &str = r#"
        #include <stdio.h>
        #include <string.h>
        typedef struct { unsigned gpu, memory; } rates;
        typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
        int nvmlInit_v2(void) { return 0; }
        int nvmlShutdown(void) { return 0; }
        int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return i < 2 ? 0 : 2; }
        int nvmlDeviceGetName(void *d, char *name, unsigned n) { snprintf(name, n, "Test %ld", (long)d); return 0; }
        int nvmlDeviceGetUUID(void *d, char *id, unsigned n) { snprintf(id, n, "GPU-%ld0-x", (long)d); return 0; }
        int nvmlDeviceGetMemoryInfo_v2(void *d, memory *m) { m->total = 1000 * (long)d; m->used = 10; return 0; }
        int nvmlDeviceGetUtilizationRates(void *d, rates *r) { static unsigned n = 50; r->gpu = n; n += 5; return 0; }
        int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { *mw = 120500; return (long)d == 1 ? 0 : 3; }
        int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *c) { *c = 60 + (long)d; return 0; }
    "#;

    fn compile(dir: &Path) -> std::path::PathBuf {
        let (source, library) = (dir.join("nvml.c"), dir.join("libnvml.so"));
        std::fs::write(&source, LIBRARY).unwrap();
        let target = "x86_64-unknown-linux-gnu";
        let compiler = cc::Build::new().opt_level(0).target(target).host(target).cargo_metadata(false).get_compiler();
        let done = compiler.to_command().args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
        assert!(done.success());
        library
    }

    #[test]
    fn devices_and_readings_come_from_the_library_and_absent_ones_stay_absent() {
        let dir = tempfile::tempdir().unwrap();
        let mut monitor = Monitor::open(Some(&compile(dir.path())), None).unwrap().unwrap();
        let named: Vec<_> =
            monitor.devices().iter().map(|d| (d.name.as_str(), d.model.as_str(), d.memory_bytes)).collect();
        assert_eq!(named, [("cuda:0", "Test 1", 1000), ("cuda:1", "Test 2", 2000)]);

        let allocated = DeviceReport { name: "cuda:0".into(), allocated_bytes: 7, ..Default::default() };
        let system = SystemReport { device: Some(allocated), ..Default::default() };
        let mut block = ReportBlock { systems: vec![system, SystemReport::default()], ..Default::default() };
        monitor.complete("cuda:0", &mut block);
        let report = block.systems[0].device.as_ref().unwrap();
        assert_eq!((report.allocated_bytes, report.used_bytes), (7, Some(10)));
        assert_eq!((report.power_watts, report.temperature_celsius), (Some(120.5), Some(61.0)));
        assert_eq!(report.utilisation, Some(0.5));
        monitor.complete("cuda:1", &mut block);
        let report = block.systems[1].device.as_ref().unwrap();
        assert_eq!((report.power_watts, report.temperature_celsius), (None, Some(62.0)));

        let before = monitor.readings.borrow_and_update().clone();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !monitor.readings.has_changed().unwrap() {
            assert!(std::time::Instant::now() < deadline, "nothing was sampled again");
            thread::yield_now();
        }
        assert_ne!(*monitor.readings.borrow(), before);
    }

    #[test]
    fn what_is_not_visible_is_not_offered_and_keeps_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let library = compile(dir.path());
        let offered = |visible: &str, share: &str| {
            let monitor = Monitor::open(Some(&library), Some(visible)).unwrap().unwrap();
            let share = DeviceShare::try_from(share.to_owned()).unwrap();
            let devices = devices::offered(DeviceChoice::Auto, share, NonZeroUsize::MIN, Some(&monitor)).unwrap();
            let readings = monitor.readings.borrow();
            devices.into_iter().map(|d| (d.name.clone(), readings[&d.name].temperature_celsius.unwrap())).collect()
        };
        let (first, second) = (("cuda:0".to_owned(), 61.0), ("cuda:1".to_owned(), 62.0));
        let both: Vec<(String, f64)> = vec![first.clone(), second.clone()];
        assert_eq!((offered("0,1", "1/1"), offered("GPU-2, GPU-10-x", "1/1")), (both.clone(), both));
        for visible in ["1", "GPU-20", "1,none,0", "1,GPU-"] {
            assert_eq!(offered(visible, "1/1"), std::slice::from_ref(&second), "{visible}");
        }
        assert_eq!((offered("0,1", "1/2"), offered("0,1", "2/2")), (vec![first], vec![second]));
        assert_eq!(offered("0,1", "3/3"), []);
    }

    #[test]
    fn a_named_library_that_is_none_is_an_error_and_an_absent_default_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.so");
        std::fs::write(&path, "none").unwrap();
        assert!(matches!(Monitor::open(Some(&path), None), Err(AgentError::Nvml { .. })));
        assert!(load(OsStr::new("libnvidia-ml-absent.so.1"), None).is_err());
    }
}
