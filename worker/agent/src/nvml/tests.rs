use std::num::NonZeroUsize;

use lockstep_rpc::SystemReport;

use super::*;
use crate::devices;
use crate::options::{DeviceChoice, DeviceShare};

fn compile(dir: &Path) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml.c");
    let library = dir.join("libnvml.so");
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
    let named: Vec<_> = monitor.devices().iter().map(|d| (d.name.as_str(), d.model.as_str(), d.memory_bytes)).collect();
    assert_eq!(named, [("cuda:0", "Test 1", 1000), ("cuda:1", "Test 2", 2000)]);

    let allocated = DeviceReport { name: "cuda:0".into(), allocated_bytes: 7, ..Default::default() };
    let system = SystemReport { device: Some(allocated), ..Default::default() };
    let mut block = ReportBlock { systems: vec![system, SystemReport::default()], ..Default::default() };
    monitor.complete("cuda:0", &mut block);
    let report = block.systems[0].device.as_ref().unwrap();
    assert_eq!((report.allocated_bytes, report.used_bytes), (7, Some(10)));
    assert_eq!((report.power_watts, report.temperature_celsius), (Some(120.5), Some(61.0)));
    assert_eq!(report.utilisation, Some(0.5));
    assert_eq!((report.sm_clock_mhz, report.memory_clock_mhz), (Some(1980.0), Some(2619.0)));
    assert_eq!((report.throttle_reasons, report.ecc_errors), (Some(0x24), Some(7)));
    assert_eq!((report.nvlink_bytes, report.xid), (Some(7 * 1024), None));
    monitor.complete("cuda:1", &mut block);
    let report = block.systems[1].device.as_ref().unwrap();
    assert_eq!((report.power_watts, report.temperature_celsius), (None, Some(62.0)));
    assert_eq!((report.ecc_errors, report.nvlink_bytes), (None, None));

    let before = monitor.readings.borrow_and_update().clone();
    sampled_again(&mut monitor);
    assert_ne!(*monitor.readings.borrow(), before);
}

#[test]
fn an_error_that_the_driver_reports_stays_with_its_device() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = Monitor::open(Some(&compile(dir.path())), None).unwrap().unwrap();
    for _ in 0..3 {
        sampled_again(&mut monitor);
    }
    let readings = monitor.readings.borrow();
    assert_eq!((readings["cuda:0"].xid, readings["cuda:1"].xid), (Some(79), None));
}

/// Waits for the next sample.
fn sampled_again(monitor: &mut Monitor) {
    monitor.readings.borrow_and_update();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !monitor.readings.has_changed().unwrap() {
        assert!(std::time::Instant::now() < deadline, "nothing was sampled again");
        thread::sleep(Duration::from_millis(10));
    }
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
