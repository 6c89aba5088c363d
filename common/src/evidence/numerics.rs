//! The environment variables that decide a result's bits or a rank process's speed, and that libtorch reads only once, as
//! it is loaded: whoever starts a rank process must set them before.
//!
//! A function of the job alone, so that every process of a run gets the same. What is set here, and what else a person
//! may have set, is part of the numerics fingerprint ([`VARIABLES`]).

use crate::job::{JobSpec, Level};
use crate::seed::{Stream, derive};

/// The variables that are known to change bits, or that libraries choose code paths by. Their values, or that they are not
/// set, belong to the numerics fingerprint. oneDNN reads each of its own under two names, and libtorch
/// gives it those of a third.
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

/// Version of Lockstep's own arithmetic: raised with every change that gives a sound job other bits. It is in the numerics
/// fingerprint, so builds that differ in it do not train together and do not resume each other's checkpoints without a person's word.
pub const ARITHMETIC: u32 = 1;

/// The fingerprint's key of [`ARITHMETIC`].
pub const ARITHMETIC_KEY: &str = "lockstep.arithmetic";

/// The fingerprint's key of what computes the gradients of a TorchScript module; other models have none.
pub const SCRIPT_GRADIENTS: &str = "torchscript.gradients";

/// The value of a fingerprint's key for builds that did not measure it yet: the value that held for all of them. None for
/// keys that every build has measured.
pub fn of_earlier_builds(key: &str) -> Option<&'static str> {
    match key {
        ARITHMETIC_KEY | "env.OMP_MAX_ACTIVE_LEVELS" => Some("1"),
        "float_mode" => Some("round to nearest, subnormals kept"),
        SCRIPT_GRADIENTS => Some("the executor's formulas"),
        _ => key.starts_with("env.").then_some("(not set)"),
    }
}

/// Whether a fingerprint's key is about libraries that only a process on a GPU uses. Builds up to 0.1.0 wrote these down for
/// processes on the CPU, too.
pub fn of_gpu_libraries(key: &str) -> bool {
    key.starts_with("cuda.") || key.starts_with("nccl.") || matches!(key, "cudnn.compiled" | "cudnn.runtime")
}

/// The variable by which an agent tells a program of the user's own what is known of it: JSON, text by text, for the run's
/// environment.
pub const PROGRAM: &str = "LOCKSTEP_PROGRAM";

/// `PYTHONHASHSEED` of a run with root seed `seed`.
pub fn python_hash_seed(seed: u64) -> u64 {
    derive(seed, Stream::User, 0, 0) >> 32
}

/// The variables, with their values, that a rank process of `job` must be started with.
pub fn environment(job: &JobSpec) -> Vec<(String, String)> {
    let threads = job.numerics.threads.to_string();
    let hash_seed = python_hash_seed(job.seed).to_string();
    let mut variables = vec![
        ("OMP_NUM_THREADS", threads.as_str()),
        ("MKL_NUM_THREADS", threads.as_str()),
        // Both may otherwise take fewer threads on a busy machine, and sums are cut by the number of threads.
        ("OMP_DYNAMIC", "FALSE"),
        ("MKL_DYNAMIC", "FALSE"),
        // c10d otherwise ends the process after an NCCL failure, which is ours to report.
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"),
        // For whatever Python a program of the rank process may start.
        ("PYTHONHASHSEED", &hash_seed),
        // OpenMP's own default. With 0 every loop runs in one thread, whatever the job says, and oneDNN waits for the others.
        ("OMP_MAX_ACTIVE_LEVELS", "1"),
        // No limit: under one, oneDNN waits for ever for threads that never come.
        ("OMP_THREAD_LIMIT", "4294967295"),
        // Tensors of one step are the next step's: memory that went back to the system would cost a page fault for
        // every 4 KiB of every temporary, at every step.
        ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
        ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
        ("MALLOC_TOP_PAD_", "268435456"),
    ];
    if job.numerics.level != Level::Off {
        // cuBLAS is repeatable only with a workspace of fixed size.
        variables.push(("CUBLAS_WORKSPACE_CONFIG", ":4096:8"));
        // Otherwise NCCL chooses by what it finds of the network, and another choice adds in another order. The tree only has
        // it move bytes.
        variables.extend([("NCCL_ALGO", "Ring"), ("NCCL_PROTO", "Simple")]);
    }
    if job.numerics.level == Level::Portable {
        variables.extend([
            ("ATEN_CPU_CAPABILITY", "default"),
            // The only value that is the same on Intel's and AMD's processors.
            ("MKL_CBWR", "COMPATIBLE"),
            ("ONEDNN_MAX_CPU_ISA", "SSE41"),
            ("DNNL_MAX_CPU_ISA", "SSE41"),
        ]);
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
