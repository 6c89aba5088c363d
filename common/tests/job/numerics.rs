//! The environment variables that a job sets for its processes.

use lockstep_common::job::parse_toml;
use lockstep_common::numerics::{VARIABLES, environment};

use super::JOB;

fn value(set: &str, name: &str) -> Option<String> {
    let job = parse_toml(JOB, &[set.to_owned()]).unwrap();
    environment(&job).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

#[test]
fn threads_and_levels_pin_what_they_say() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(value("numerics.threads=3", "OMP_NUM_THREADS"), some("3"));
    assert_eq!(value("numerics.threads=3", "MKL_NUM_THREADS"), some("3"));
    assert_eq!(value("numerics.level=off", "CUBLAS_WORKSPACE_CONFIG"), None);
    assert_eq!(value("numerics.level=exact", "CUBLAS_WORKSPACE_CONFIG"), some(":4096:8"));
    assert_eq!(value("numerics.level=exact", "MKL_CBWR"), None);
    assert_eq!(value("numerics.level=portable", "MKL_CBWR"), some("COMPATIBLE"));
    assert_eq!(value("numerics.level=portable", "ATEN_CPU_CAPABILITY"), some("default"));
    assert_eq!(value("numerics.level=portable", "ONEDNN_MAX_CPU_ISA"), some("SSE41"));
}

#[test]
fn a_python_program_hashes_by_the_seed() {
    let seed = |set: &str| value(set, "PYTHONHASHSEED").unwrap().parse::<u32>().unwrap();
    assert_eq!(seed("seed=1"), seed("seed=1"));
    assert_ne!(seed("seed=1"), seed("seed=2"));
}

#[test]
fn what_is_set_and_changes_bits_is_part_of_the_fingerprint() {
    let job = parse_toml(JOB, &["numerics.level=portable".to_owned()]).unwrap();
    for (name, _) in environment(&job) {
        let speed_only = name.starts_with("MALLOC_") || name == "TORCH_NCCL_ASYNC_ERROR_HANDLING";
        // `PYTHONHASHSEED` is derived from the seed, which a checkpoint records.
        assert!(speed_only || name == "PYTHONHASHSEED" || VARIABLES.contains(&name.as_str()), "{name}");
    }
}
