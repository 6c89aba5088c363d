//! The environment variables that rank processes and builds get from the agent.
//!
//! The agent's environment may hold credentials, and a job's program is somebody else's code. So only listed variables are passed on:
//! those that the loader, libtorch, CUDA, NCCL, compilers and cargo read, those that the numerics compare, and `LOCKSTEP_*`. The
//! node's operator adds others with `[environment] pass` of `worker.toml`.

use std::ffi::OsString;
use std::sync::Arc;

use lockstep_common::numerics;
use tokio::process::Command;

const NAMES: [&str; 39] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TERM",
    "TZ",
    "TZDIR",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "LD_BIND_NOW",
    "LIBRARY_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "AR",
    "CC",
    "CXX",
    "LD",
    "CFLAGS",
    "CPPFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "VIRTUAL_ENV",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

const PREFIXES: [&str; 38] = [
    "LC_",
    "XDG_",
    "LOCKSTEP_",
    "LIBTORCH",
    "ATEN_",
    "C10_",
    "TORCH_",
    "PYTORCH_",
    "CUDA_",
    "CUDNN_",
    "CUBLAS_",
    "CUBLASLT_",
    "NVIDIA_",
    "NVRTC_",
    "NCCL_",
    "GLOO_",
    "UCX_",
    "FI_",
    "IBV_",
    "RDMAV_",
    "MKL_",
    "MKLDNN_",
    "DNNL_",
    "ONEDNN_",
    "FBGEMM_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "TBB_",
    "GLIBC_",
    "MALLOC_",
    "INTEL_",
    "CARGO_",
    "RUSTUP_",
    "RUST_",
    "PKG_CONFIG",
    "CMAKE_",
    "OPENSSL_",
];

/// Parts of the names of credentials. A name with one of them is not passed on, even if it has one of the prefixes above.
const CREDENTIALS: [&str; 5] = ["TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "_KEY"];

/// Variables that git needs to fetch commits for the agent. Programs do not get them.
const OF_GIT: [&str; 3] = ["SSH_AUTH_SOCK", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"];

/// Whether this process has variables beside those of [`kept`]. Programs of the same user could read them in `/proc`.
pub fn has_more(pass: &[String]) -> bool {
    std::env::vars_os().any(|(name, _)| !is_kept(&name, pass))
}

/// The variables that an agent may have: those that it passes on, and those that git needs.
pub fn kept(pass: &[String]) -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| is_kept(name, pass)).collect()
}

fn is_kept(name: &OsString, pass: &[String]) -> bool {
    name.to_str().is_some_and(|name| OF_GIT.contains(&name) || is_given(name, pass))
}

/// The variables that are passed on, with their values at the agent's start.
#[derive(Clone, Debug)]
pub(crate) struct Environment(Arc<Vec<(OsString, OsString)>>);

impl Environment {
    /// This process's variables that are listed or that `pass` names. An entry of `pass` that ends with `*` is a prefix.
    pub(crate) fn of(pass: &[String]) -> Self {
        let given = |name: &OsString| name.to_str().is_some_and(|name| is_given(name, pass));
        Self(Arc::new(std::env::vars_os().filter(|(name, _)| given(name)).collect()))
    }

    /// Sets them for `command`, which inherits no other variable.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.env_clear().envs(self.0.iter().map(|(name, value)| (name, value)));
    }
}

fn is_given(name: &str, pass: &[String]) -> bool {
    let passed = |pattern: &String| match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    let listed =
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !CREDENTIALS.iter().any(|word| name.contains(word));
    pass.iter().any(passed) || NAMES.contains(&name) || numerics::VARIABLES.contains(&name) || listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libraries_read_is_given_and_credentials_are_not() {
        let given = |name: &str| is_given(name, &[]);
        for name in [
            "PATH",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "OMP_NUM_THREADS",
            "NCCL_SOCKET_IFNAME",
            "LOCKSTEP_FAULT",
            "CARGO_HOME",
        ] {
            assert!(given(name), "{name}");
        }
        assert!(numerics::VARIABLES.iter().all(|name| given(name)), "all that is compared");
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "GITHUB_TOKEN",
            "CARGO_REGISTRY_TOKEN",
            "WANDB_API_KEY",
            "SSH_AUTH_SOCK",
            "KUBECONFIG",
            "PATHS",
        ] {
            assert!(!given(name), "{name}");
        }
        let pass = ["WANDB_API_KEY".to_owned(), "MINE_*".to_owned()];
        assert!(is_given("WANDB_API_KEY", &pass) && is_given("MINE_A", &pass) && !is_given("MINE", &pass));
    }
}
