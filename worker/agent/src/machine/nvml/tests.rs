use std::num::NonZeroUsize;

use lockstep_rpc::decode_block;

use super::*;
use crate::machine::devices;
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

    let values = |block: EncodedBlock, process: u32| -> BTreeMap<String, f64> {
        let block = decode_block(process, &block.into_stored()).unwrap().block;
        let value = |series: Series| {
            let point = series.points().next().unwrap();
            assert!(series.part == Some(process) && point.step == 40 && point.at_ms > 0, "{series:?}");
            (series.name, point.value)
        };
        block.series.into_iter().map(value).collect()
    };
    let mut feed = monitor.feed("cuda:0", 3);
    let first = values(feed.next(40).unwrap(), 3);
    let of = |name: &str| first.get(&format!("device/{name}")).copied();
    assert_eq!((of("memory_used_bytes"), of("utilisation")), (Some(10.0), Some(0.5)));
    assert_eq!((of("power_watts"), of("temperature_celsius")), (Some(120.5), Some(61.0)));
    assert_eq!((of("sm_clock_mhz"), of("memory_clock_mhz")), (Some(1980.0), Some(2619.0)));
    assert_eq!((of("throttle_reasons"), of("ecc_errors")), (Some(36.0), Some(7.0)));
    assert_eq!((of("nvlink_bytes"), of("xid")), (Some(7.0 * 1024.0), None));
    let second = values(monitor.feed("cuda:1", 0).next(40).unwrap(), 0);
    assert_eq!(second.get("device/temperature_celsius"), Some(&62.0));
    assert!(
        ["power_watts", "ecc_errors", "nvlink_bytes"]
            .iter()
            .all(|name| !second.contains_key(&format!("device/{name}")))
    );
    assert!(monitor.feed("cpu", 0).next(40).is_none());

    let before = monitor.readings.borrow_and_update().clone();
    while feed.next(41).is_some() {}
    sampled_again(&mut monitor);
    assert_ne!(*monitor.readings.borrow(), before);
    assert!(feed.next(41).is_some(), "what is new is told, once");
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
