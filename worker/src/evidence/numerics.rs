//! Everything that is known to change bits: set according to `numerics.level`, and collected in the numerics fingerprint. Also the
//! environment of the process, as information for people.

use std::collections::BTreeMap;
use std::fs;

use lockstep_common::job::{JobSpec, Level, Model, Reduction};
use lockstep_common::numerics::{ARITHMETIC, ARITHMETIC_KEY, PROGRAM, SCRIPT_GRADIENTS, VARIABLES, of_gpu_libraries};
use lockstep_common::{Digest, Domain};
use lockstep_tch_ext::determinism::{self, Switches};
use lockstep_tch_ext::{float_mode, processor, script};
use tch::Device;

use super::libraries;
use crate::observe::device_name;
use crate::reduce::{Layout, bucket_bytes};

/// The versions of all dependencies of this program.
const CARGO_LOCK: &[u8] = include_bytes!("../../../Cargo.lock");

/// Sets libtorch's switches for `job`, and the processor's floating-point mode. To be called by the training thread, before it creates the
/// first tensor.
///
/// # Errors
/// `Architecture` at the levels `exact` and `portable` on any processor but x86-64; `Torch`.
pub fn apply(job: &JobSpec) -> Result<(), lockstep_tch_ext::Error> {
    if job.numerics.level != Level::Off && !float_mode::KNOWN {
        return Err(lockstep_tch_ext::Error::Architecture(std::env::consts::ARCH));
    }
    // Threads inherit the mode from the thread that starts them, and libtorch starts its threads later.
    float_mode::set_default();
    determinism::pin_torchscript_executor();
    determinism::apply(&switches(job))?;
    float_mode::set_default();
    Ok(())
}

/// Checks that all computing threads still have the floating-point mode that [`apply`] set.
///
/// # Errors
/// `FloatMode` with the mode of a thread that differs. At level `off` there is no check.
pub fn check(job: &JobSpec) -> Result<(), lockstep_tch_ext::Error> {
    if job.numerics.level == Level::Off { Ok(()) } else { float_mode::check() }
}

/// The switches of a level.
fn switches(job: &JobSpec) -> Switches {
    let repeatable = job.numerics.level != Level::Off;
    Switches {
        deterministic_algorithms: repeatable,
        cudnn_benchmark: !repeatable,
        cudnn_deterministic: repeatable,
        tf32: job.numerics.tf32,
        intra_op_threads: job.numerics.threads as usize,
        inter_op: Some(1),
        // It would show reads of uninitialised memory, but costs a pass over memory, and changes no bits of a correct model.
        fill_uninitialized: false,
    }
}

/// The numerics fingerprint: processes with equal maps are expected to compute equal bits. It contains hardware, libraries and environment
/// variables, and the job's choices: level, reduction order, optimizer kernels, layout of the reduced tensor.
///
/// At level `off`, which guarantees nothing, it has only the entries that two processes must share to train together.
pub fn fingerprint(job: &JobSpec, layout: &Layout, device: Device) -> BTreeMap<String, String> {
    let level = job.numerics.level;
    let reduction = match job.numerics.reduction {
        // The tree adds each element independently of its bucket.
        Reduction::Tree => "tree".to_owned(),
        // A back end's order of additions depends on where the buckets are cut, and the head of the layout moves the cuts.
        Reduction::Native => format!("native, buckets of {} KiB behind a head", bucket_bytes(device) >> 10),
    };
    let mut map = BTreeMap::from([
        ("level".to_owned(), format!("{level:?}").to_lowercase()),
        ("reduction".to_owned(), reduction),
        ("layout".to_owned(), layout.describe()),
    ]);
    if level == Level::Off {
        return map;
    }
    map.extend(determinism::describe().into_iter().filter_map(|(key, value)| Some((own_key(key, device)?, value))));
    map.insert(ARITHMETIC_KEY.to_owned(), ARITHMETIC.to_string());
    map.insert("float_mode".to_owned(), float_mode::describe());
    map.insert("optimizer".to_owned(), format!("{:?}, fused", job.optimizer.kind).to_lowercase());
    map.insert("device".to_owned(), if device.is_cuda() { "cuda" } else { "cpu" }.to_owned());
    for name in VARIABLES {
        let value = std::env::var(name).unwrap_or_else(|_| "(not set)".to_owned());
        map.insert(format!("env.{name}"), value);
    }
    map.extend(libraries::preloaded());
    map.extend(libraries::shadowing());
    if let Model::Torchscript { .. } = job.model {
        let gradients = script::gradients().unwrap_or_else(|error| error.to_string());
        map.insert(SCRIPT_GRADIENTS.to_owned(), gradients);
    }
    if level == Level::Portable && !processor::fuses() {
        map.insert("cpu.fma".to_owned(), "none".to_owned());
    }
    if level == Level::Portable && device == Device::Cpu && may_be_rough(&job.model) {
        map.insert("cpu.approximations".to_owned(), processor::approximations());
    }
    if level == Level::Exact {
        // At level `exact` libraries choose code paths by the processor; `portable` pins the code paths instead.
        map.insert("cpu.model".to_owned(), cpu_model());
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        map.insert("cpu.features".to_owned(), cpu_features(&info));
        if !info.contains("model name") {
            // The system hides the processor's name, but libraries read the processor directly.
            map.extend(processor::says().map(|says| ("cpu.id".to_owned(), says)));
        }
    }
    map
}

/// Whether the model may use operators that begin with the processor's approximate instructions. The built-in models do not.
fn may_be_rough(model: &Model) -> bool {
    matches!(model, Model::Torchscript { .. } | Model::Program)
}

/// The key of a description in the fingerprint; `None` to leave it out. Of the machine's CUDA devices only this process's is included,
/// without its index; on the CPU, no GPU library is included.
fn own_key(key: String, device: Device) -> Option<String> {
    match (key.strip_prefix("cuda.device"), device) {
        (None, Device::Cuda(_)) => Some(key),
        (Some(of), Device::Cuda(index)) => (of == format!(".{index}")).then(|| "cuda.device".to_owned()),
        _ => (!of_gpu_libraries(&key)).then_some(key),
    }
}

/// The environment of the process: host, system, hardware, program, libraries. It is recorded, and never compared.
pub fn environment(device: Device) -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let os = read("/etc/os-release");
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown").trim_matches('"');
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut map = BTreeMap::from([
        ("host".to_owned(), read("/proc/sys/kernel/hostname")),
        ("os".to_owned(), os.to_owned()),
        ("kernel".to_owned(), read("/proc/sys/kernel/osrelease")),
        ("cpu.model".to_owned(), cpu_model()),
        ("cpu.cores".to_owned(), cores.to_string()),
        ("device".to_owned(), device_name(device)),
        ("program".to_owned(), format!("worker {}", env!("CARGO_PKG_VERSION"))),
        ("program.digest".to_owned(), own_digest().map_or_else(|| "unknown".to_owned(), |digest| digest.to_hex())),
    ]);
    map.insert("program.cargo_lock".to_owned(), Domain::Blob.digest(CARGO_LOCK).to_hex());
    map.insert("glibc".to_owned(), glibc().unwrap_or_else(|| "unknown".to_owned()));
    let driver = read("/proc/driver/nvidia/version");
    map.extend(driver.lines().next().map(|line| ("cuda.driver".to_owned(), line.to_owned())));
    // For a user's program the agent passes on what it was built from.
    let facts = std::env::var(PROGRAM).ok().and_then(|text| serde_json::from_str(&text).ok());
    map.extend::<BTreeMap<String, String>>(facts.unwrap_or_default());
    map.extend(std::env::var("LD_PRELOAD").ok().map(|paths| ("LD_PRELOAD".to_owned(), paths)));
    map.extend(libraries::mapped());
    map
}

/// Name, family and model of the processor: hypervisors give many models one name.
fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let Some(name) = cpu_info(&info, "model name") else { return std::env::consts::ARCH.to_owned() };
    let number = |key: &str| cpu_info(&info, key).unwrap_or("?");
    format!("{name}, family {}, model {}", number("cpu family"), number("model"))
}

/// The instruction sets by which libraries choose kernels. Other flags are left out: a newer Linux lists more of them, and computes the
/// same bits.
fn cpu_features(info: &str) -> String {
    const KINDS: [&str; 9] = ["sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "asimd", "sve"];
    let flags = cpu_info(info, "flags").or(cpu_info(info, "Features")).unwrap_or_default();
    let mut named: Vec<&str> =
        flags.split_whitespace().filter(|flag| KINDS.iter().any(|kind| flag.starts_with(kind))).collect();
    named.sort_unstable();
    named.join(" ")
}

/// The value of `key` for the first processor in `info` (`/proc/cpuinfo`).
fn cpu_info<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

/// The version banner of the C library in use.
fn glibc() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.ends_with("/libc.so.6"))?;
    let bytes = fs::read(path).ok()?;
    let banner = b"GNU C Library ";
    let at = bytes.windows(banner.len()).position(|window| window == banner)?;
    let line = bytes[at..].split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim_end_matches('.').to_owned())
}

fn own_digest() -> Option<Digest> {
    let mut hasher = Domain::Blob.hasher();
    let mut program = fs::File::open("/proc/self/exe").ok()?;
    std::io::copy(&mut program, &mut hasher).ok()?;
    Some(Digest::of(&hasher))
}

#[cfg(test)]
mod tests {
    use lockstep_common::numerics::of_earlier_builds;

    use super::*;

    #[test]
    fn processors_of_one_name_are_told_apart_and_other_devices_are_not_compared() {
        let info =
            "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: Some CPU @ 2: x\nflags\t\t: fpu avx2\n";
        assert_eq!(cpu_info(info, "model"), Some("1"));
        assert_eq!(cpu_features(info), "avx2");
        assert_eq!(cpu_info(info, "model name"), Some("Some CPU @ 2: x"));
        assert!(cpu_model().contains(", family ") || !cfg!(target_arch = "x86_64"));
        let key = |key: &str, device| own_key(key.to_owned(), device);
        let one = Device::Cuda(1);
        assert_eq!(
            key("cuda.device.1", one).as_deref(),
            Some("cuda.device"),
            "processes of one run have different numbers"
        );
        assert_eq!(
            (key("cuda.device.0", one), key("cuda.device.11", one), key("cuda.devices", one)),
            (None, None, None)
        );
        assert_eq!((key("cuda.device.0", Device::Cpu), key("cuda.devices", Device::Cpu)), (None, None));
        assert_eq!(key("cuda.compiled", one).as_deref(), Some("cuda.compiled"));
        assert_eq!((key("cuda.compiled", Device::Cpu), key("nccl.runtime", Device::Cpu)), (None, None));
        assert_eq!(key("cudnn.used", Device::Cpu).as_deref(), Some("cudnn.used"));
    }

    #[test]
    fn what_earlier_builds_did_not_measure_counts_as_this_one_finds_it_in_order() {
        assert_eq!(of_earlier_builds("float_mode"), Some(float_mode::DEFAULT));
        for variable in ["env.LD_PRELOAD", "env.INTEL_ISA_DISABLE"] {
            assert_eq!(of_earlier_builds(variable), Some("(not set)"));
        }
        assert_eq!(of_earlier_builds("layout"), None);
    }

    #[test]
    fn the_environment_names_this_machine_and_program() {
        let map = environment(Device::Cpu);
        assert_eq!(map["device"], "cpu");
        assert_eq!((map["program.digest"].len(), map["program.cargo_lock"].len()), (64, 64));
        assert!(
            map["glibc"].starts_with("GNU C Library (") && map["glibc"].contains(" version 2."),
            "{}",
            map["glibc"]
        );
        assert!(!map["kernel"].is_empty() && !map["cpu.model"].is_empty());
    }
}
