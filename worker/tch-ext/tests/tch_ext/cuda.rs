//! libtorch's CUDA libraries are loaded before the first use of a device if there is a driver, and otherwise not at all.

use std::fs;
use std::path::Path;
use std::process::Command;

use lockstep_support::{only_test, printed};
use lockstep_tch_ext::determinism::describe;

const LISTING: &str = "cuda::a_listing_of_what_a_process_loaded";

/// The output of [`LISTING`] in a process that searches libraries in `folder` first.
fn listing(folder: &Path) -> String {
    printed(only_test(LISTING).arg("--ignored").env("LD_LIBRARY_PATH", folder))
}

#[test]
#[ignore = "the other test's process"]
fn a_listing_of_what_a_process_loaded() {
    let loaded = |name: &str| fs::read_to_string("/proc/self/maps").unwrap().contains(name);
    println!("before: {}", loaded("libtorch_cuda.so"));
    for (name, value) in describe() {
        println!("{name}: {value}");
    }
    println!("image: {}", loaded(lockstep_tch_ext::CUDA_IMAGE));
}

#[test]
fn the_libraries_are_loaded_where_a_driver_is_and_a_driver_without_devices_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let without = listing(folder.path());
    // A library with the name of the driver and none of its functions, as after a failed installation.
    let library = folder.path().join("libcuda.so.1");
    printed(Command::new("cc").args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(&library));
    let with = listing(folder.path());
    for line in ["before: true", "image: true", "cuda.compiled: 13000", "cuda.devices: 0"] {
        assert!(with.lines().any(|other| other == line), "`{line}` is missing in {with}");
    }
    if !Path::new("/proc/driver/nvidia/version").exists() {
        let of_gpu = |line: &&str| line.starts_with("cuda.") || line.starts_with("nccl.");
        assert_eq!(without.lines().filter(of_gpu).collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(without.contains("before: false") && without.contains("image: false"), "{without}");
        // All other properties are the same for a process on the CPU.
        let others = |text: &str| {
            let lines = text
                .lines()
                .filter(|line| line.contains('.') && !line.starts_with("cuda.") && !line.starts_with("nccl."));
            lines
                .filter(|line| !line.starts_with("cudnn.") && !line.starts_with("test "))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(others(&with), others(&without));
    }
}
