//! Compiles the C++ shim against the `torch` wheel, and passes the path of libtorch on to dependent crates.
//!
//! Missing files are reported by name before the compiler fails on them. The library directory is published as
//! `DEP_LOCKSTEP_TCH_EXT_LIB`, so that the build script of a binary can set its rpath.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The version of libtorch whose C++ interface `tch` 0.26 binds.
const TORCH_VERSION: &str = "2.13.0";

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-changed=build.rs");
    let (torch, python) = find_torch();
    // For the tests, which compare with PyTorch.
    println!("cargo::rustc-env=LOCKSTEP_PYTHON={python}");
    let git = check_version(&torch);
    let lib = torch.join("lib");
    let includes = torch.join("include");

    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        // A fused multiply-add rounds once, two operations round twice: the compiler must not fuse our sums.
        .flag("-ffp-contract=off")
        .flag_if_supported("-Wno-unused-parameter")
        .define("LOCKSTEP_TORCH_GIT", format!("\"{git}\"").as_str())
        // As libtorch was built: without it, its headers give some classes another layout.
        .define("NDEBUG", None)
        .include("cpp");
    // As system directories, so that the compiler reports no warnings in libtorch's headers.
    for folder in [includes.join("torch/csrc/api/include"), includes] {
        build.flag("-isystem").flag(folder.to_string_lossy().as_ref());
    }
    let cuda = lib.join("libtorch_cuda.so").exists();
    if cuda {
        build.define("LOCKSTEP_CUDA", None);
    }
    let mut shim = build.clone();
    shim.file("cpp/all.cpp");
    if cuda {
        let image = std::thread::scope(|scope| {
            let half = scope.spawn(|| compile_cuda_half(build, &torch, &lib));
            shim.compile("lockstep_tch_ext");
            half.join().unwrap_or_else(|_| exit(1))
        });
        let image = format!("\"{}\"", image.display());
        let mut carrier = cc::Build::new();
        carrier.define("LOCKSTEP_CUDA_IMAGE", image.as_str()).file("cpp/cuda/image.S").compile("lockstep_cuda_image");
    } else {
        shim.compile("lockstep_tch_ext");
    }

    println!("cargo::rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "torch", "c10"] {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo::metadata=LIB={}", lib.display());
    println!("cargo::metadata=CUDA={}", u8::from(cuda));
}

/// The directory of the `torch` package, and the Python that it belongs to: from `LIBTORCH`, or else from the Python that `torch-sys` uses.
fn find_torch() -> (PathBuf, String) {
    for name in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "VIRTUAL_ENV"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let use_python = env::var_os("LIBTORCH_USE_PYTORCH").is_some();
    let python = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    if let Some(folder) = env::var_os("LIBTORCH").filter(|_| !use_python) {
        return (PathBuf::from(folder), python.to_owned());
    }
    let probe = "import sys, importlib.util as u; s = u.find_spec('torch'); \
                 print(sys.executable, s.submodule_search_locations[0] if s else '', sep='\\n')";
    let answer = match Command::new(python).args(["-c", probe]).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => stop(&format!("cannot start `{python}`, which knows the path of torch: {error}")),
    };
    let mut lines = answer.lines();
    let executable = lines.next().unwrap_or(python).to_owned();
    match lines.next() {
        Some(folder) if !folder.is_empty() => (PathBuf::from(folder), executable),
        _ => stop(&format!("`{executable}`, the first `{python}` in PATH, has no torch, which contains libtorch")),
    }
}

/// Stops the build if torch has another version than `tch` binds. Returns the commit that torch was built from.
fn check_version(torch: &Path) -> String {
    let file = torch.join("version.py");
    println!("cargo::rerun-if-changed={}", file.display());
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key) && line.contains('='));
        line.and_then(|line| line.split('\'').nth(1)).unwrap_or_default().to_owned()
    };
    // A libtorch archive has no `version.py`, but a file `build-version` with one line.
    let version = match value("__version__") {
        found if found.is_empty() => std::fs::read_to_string(torch.join("build-version")).unwrap_or_default(),
        found => found,
    };
    if version.trim().split('+').next() != Some(TORCH_VERSION) {
        stop(&format!(
            "torch in `{}` has version `{}`, but `{TORCH_VERSION}` is needed",
            torch.display(),
            version.trim()
        ));
    }
    match value("git_version") {
        git if git.is_empty() => "unknown".to_owned(),
        git => git,
    }
}

/// Compiles the code that calls libtorch's CUDA libraries into a separate library, so that a program can start without them. Returns its
/// path. The linker checks that the libraries have all functions.
fn compile_cuda_half(mut build: cc::Build, torch: &Path, lib: &Path) -> PathBuf {
    build.define("USE_C10D_NCCL", None);
    for folder in cuda_includes(torch) {
        build.flag("-isystem").flag(folder.to_string_lossy().as_ref());
    }
    let image = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("liblockstep_cuda.so");
    let mut compiler = build.get_compiler().to_command();
    compiler.args(["-shared", "-s", "-Wl,--no-undefined", "-Wl,--no-as-needed", "cpp/cuda/half.cpp", "-o"]).arg(&image);
    compiler.arg("-L").arg(lib).arg(format!("-Wl,-rpath,{}", lib.display()));
    compiler.args(["-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"]);
    match compiler.status() {
        Ok(status) if status.success() => image,
        Ok(status) => {
            stop(&format!("the CUDA part does not compile or link ({status}); see the compiler's messages above"))
        }
        Err(error) => stop(&format!("cannot start the C++ compiler: {error}")),
    }
}

/// The directories of the CUDA and NCCL headers, which are separate wheels beside torch.
fn cuda_includes(torch: &Path) -> Vec<PathBuf> {
    let nvidia = torch.with_file_name("nvidia");
    let cuda = nvidia.join("cu13/include");
    let nccl = nvidia.join("nccl/include");
    let needed = [
        (cuda.join("cuda_runtime_api.h"), "nvidia-cuda-runtime"),
        (cuda.join("crt/host_config.h"), "nvidia-cuda-crt==13.0.*"),
        (cuda.join("cccl"), "nvidia-cuda-cccl==13.0.*"),
        (nccl.join("nccl.h"), "nvidia-nccl-cu13"),
    ];
    for (path, wheel) in &needed {
        if !path.exists() {
            stop(&format!(
                "torch in `{}` has CUDA, but `{}` of the wheel `{wheel}` is missing",
                torch.display(),
                path.display()
            ));
        }
    }
    vec![cuda.join("cccl"), cuda, nccl]
}

fn stop(reason: &str) -> ! {
    println!("cargo::error={reason}");
    println!(
        "cargo::error=hint: run `make setup`, which creates a Python environment with torch {TORCH_VERSION} and the CUDA headers; \
              put its `bin` directory first in PATH, and set LIBTORCH_USE_PYTORCH=1"
    );
    exit(1)
}
