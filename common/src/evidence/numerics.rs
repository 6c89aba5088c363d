//! Environment variables that determine a result's bits or a rank process's speed. libtorch reads them once, when it is loaded, so
//! they must be set before a rank process starts.
//!
//! Their values depend on the job alone, so that every process of a run has the same. The numerics fingerprint includes these
//! variables and others that a user may have set ([`VARIABLES`]).

use crate::job::{JobSpec, Level};
use crate::seed::{Stream, derive};

/// Variables that are known to change bits or to select code paths in libraries. The numerics fingerprint has the value of each, or
/// that it is not set. oneDNN reads each of its variables under two names (`ONEDNN_`, `DNNL_`); `MKLDNN_` is a third, older name.
pub const VARIABLES: &[&str] = &[
    "ATEN_CPU_CAPABILITY",
    "CUBLASLT_WORKSPACE_SIZE",
    "CUBLAS_WORKSPACE_CONFIG",
    "DISABLE_ADDMM_CUDA_LT",
    "DNNL_CPU_ISA_HINTS",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "FBGEMM_ENABLE_AVX512_256",
    "FBGEMM_ENABLE_INSTRUCTIONS",
    "FBGEMM_FORCE_AUTOVEC",
    "FBGEMM_NO_ASMJIT",
    "FBGEMM_NO_AUTOVEC",
    "GLIBC_TUNABLES",
    "INTEL_ISA_DISABLE",
    "INTEL_LIBITTNOTIFY32",
    "INTEL_LIBITTNOTIFY64",
    "LD_AUDIT",
    "LD_PRELOAD",
    "MKLDNN_CPU_ISA_HINTS",
    "MKLDNN_DEFAULT_FPMATH_MODE",
    "MKLDNN_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DISABLE_FAST_MM",
    "MKL_DOMAIN_NUM_THREADS",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_STRIPES",
    "MKL_NUM_THREADS",
    "MKL_VML_DEBUG_CPU_TYPE",
    "NCCL_ALGO",
    "NCCL_MAX_NCHANNELS",
    "NCCL_MIN_NCHANNELS",
    "NCCL_PROTO",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC",
    "OMP_MAX_ACTIVE_LEVELS",
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "ONEDNN_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "PYTORCH_TUNABLEOP_ENABLED",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINALG_PREFER_CUSOLVER",
    "TORCH_LINEAR_FLATTEN_3D",
    "TORCH_MKLDNN_MATMUL_MIN_DIM",
    "TORCH_MKLDNN_MATMUL_MIN_SIZE",
];

/// Version of Lockstep's own arithmetic: increased with every change that alters the bits of a correct job. It is in the numerics
/// fingerprint, so builds with different versions cannot train together, and resuming each other's checkpoints needs
/// `coord resume --accept`.
pub const ARITHMETIC: u32 = 1;

/// Key of [`ARITHMETIC`] in the numerics fingerprint.
pub const ARITHMETIC_KEY: &str = "lockstep.arithmetic";

/// Key in the numerics fingerprint of the method that computes a TorchScript module's gradients. Other models do not have this key.
pub const SCRIPT_GRADIENTS: &str = "torchscript.gradients";

/// The value of fingerprint key `key` in builds that did not measure it yet: all of them had this value. `None` for keys that
/// every build has measured.
pub fn of_earlier_builds(key: &str) -> Option<&'static str> {
    match key {
        ARITHMETIC_KEY | "env.OMP_MAX_ACTIVE_LEVELS" => Some("1"),
        "float_mode" => Some("round to nearest, subnormals kept"),
        SCRIPT_GRADIENTS => Some("the executor's formulas"),
        _ => key.starts_with("env.").then_some("(not set)"),
    }
}

/// Whether a fingerprint key describes a library that only a process on a GPU uses. Builds up to 0.1.0 recorded these keys for
/// processes on the CPU, too.
pub fn of_gpu_libraries(key: &str) -> bool {
    key.starts_with("cuda.") || key.starts_with("nccl.") || matches!(key, "cudnn.compiled" | "cudnn.runtime")
}

/// Variable in which an agent passes a user's program the facts about itself, for the run's environment: a JSON object of strings.
pub const PROGRAM: &str = "LOCKSTEP_PROGRAM";

/// `PYTHONHASHSEED` of a run with root seed `seed`.
pub fn python_hash_seed(seed: u64) -> u64 {
    derive(seed, Stream::User, 0, 0) >> 32
}

/// Environment variables, with values, for each rank process of `job`.
pub fn environment(job: &JobSpec) -> Vec<(String, String)> {
    let threads = job.numerics.threads.to_string();
    let hash_seed = python_hash_seed(job.seed).to_string();
    let mut variables = vec![
        ("OMP_NUM_THREADS", threads.as_str()),
        ("MKL_NUM_THREADS", threads.as_str()),
        // Otherwise both may use fewer threads on a busy machine. The number of threads determines how sums are split.
        ("OMP_DYNAMIC", "FALSE"),
        ("MKL_DYNAMIC", "FALSE"),
        // Otherwise c10d ends the process after an NCCL failure, before the process can report it.
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"),
        // For any Python that a user's program starts.
        ("PYTHONHASHSEED", &hash_seed),
        // OpenMP's own default. With 0 every loop runs in one thread, whatever the job sets, and oneDNN waits for the others.
        ("OMP_MAX_ACTIVE_LEVELS", "1"),
        // No limit. With a limit, oneDNN waits forever for threads that are never started.
        ("OMP_THREAD_LIMIT", "4294967295"),
        // Each step needs as much memory as the one before. Memory that glibc returned to the system would cost a page fault for
        // every 4 KiB of every temporary tensor, in every step.
        ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
        ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
        ("MALLOC_TOP_PAD_", "268435456"),
    ];
    if job.numerics.level != Level::Off {
        // cuBLAS is deterministic only with a workspace of fixed size.
        variables.push(("CUBLAS_WORKSPACE_CONFIG", ":4096:8"));
        // Otherwise NCCL selects algorithm and protocol by the network, and another selection adds in another order. This matters
        // for `native` reduction; `tree` uses NCCL only to move bytes.
        variables.extend([("NCCL_ALGO", "Ring"), ("NCCL_PROTO", "Simple")]);
    }
    if job.numerics.level == Level::Portable {
        variables.extend([
            ("ATEN_CPU_CAPABILITY", "default"),
            // The only value that gives the same bits on Intel and AMD processors.
            ("MKL_CBWR", "COMPATIBLE"),
            ("ONEDNN_MAX_CPU_ISA", "SSE41"),
            ("DNNL_MAX_CPU_ISA", "SSE41"),
        ]);
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
