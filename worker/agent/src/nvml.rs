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
    /// Loads `library`, or the system's; `None` if the system has none.
    pub(crate) fn open(library: Option<&Path>) -> Result<Option<Self>, AgentError> {
        let opened = load(library.map_or(OsStr::new(DEFAULT_LIBRARY), Path::as_os_str));
        match (opened, library) {
            (Ok((nvml, devices)), _) => Ok(Some(Self::watch(nvml, devices))),
            (Err(source), Some(path)) => Err(AgentError::Nvml { path: path.to_owned(), source }),
            (Err(error), None) => {
                debug!("no NVML: {error}");
                Ok(None)
            }
        }
    }

    /// Every device, `cuda:N` in NVML's order.
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

fn load(library: &OsStr) -> Result<(Nvml, Vec<Device>), NvmlError> {
    let nvml = Nvml::builder().lib_path(library).init()?;
    let devices = (0..nvml.device_count()?)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            Ok(Device {
                name: format!("cuda:{index}"),
                model: device.name()?,
                memory_bytes: device.memory_info()?.total,
            })
        })
        .collect::<Result<_, NvmlError>>()?;
    Ok((nvml, devices))
}

fn sample(nvml: &Nvml, names: &[String]) -> Readings {
    (0..).zip(names).filter_map(|(index, name)| Some((name.clone(), reading(nvml, index)?))).collect()
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
    use lockstep_rpc::SystemReport;

    use super::*;

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
        let mut monitor = Monitor::open(Some(&compile(dir.path()))).unwrap().unwrap();
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
    fn a_named_library_that_is_none_is_an_error_and_an_absent_default_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.so");
        std::fs::write(&path, "none").unwrap();
        assert!(matches!(Monitor::open(Some(&path)), Err(AgentError::Nvml { .. })));
        assert!(load(OsStr::new("libnvidia-ml-absent.so.1")).is_err());
    }
}
