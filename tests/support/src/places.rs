//! Paths: the repository, the installations of `scripts/setup.sh`, programs of this build.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in `tests/support`").to_owned()
}

/// The directory `$LOCKSTEP_CACHE`: libtorch, larger data sets, programs that tests run.
pub fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("LOCKSTEP_CACHE").expect("LOCKSTEP_CACHE must be set; source `scripts/env.sh`"))
}

/// The path of a program in the Python environment of the test tools.
pub fn tool(name: &str) -> PathBuf {
    let path = cache().join("test-tools/bin").join(name);
    assert!(path.is_file(), "`{}` does not exist; run `scripts/setup.sh --test`", path.display());
    path
}

/// The Python interpreter with the PyTorch that this build is linked with.
pub fn torch_python() -> PathBuf {
    cache().join("torch-2.13.0/bin/python3")
}

/// The Python packages of the test tools: those that PyTorch's environment lacks, for `PYTHONPATH`.
pub fn tool_packages() -> PathBuf {
    let libraries = std::fs::read_dir(cache().join("test-tools/lib")).into_iter().flatten().flatten();
    let packages = libraries.map(|entry| entry.path().join("site-packages")).find(|path| path.exists());
    packages.expect("`scripts/setup.sh --test` installs them")
}

/// The path of a program of this build, such as `coord` or `examples/fake_rank`.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test.parent().and_then(Path::parent).expect("tests are built in `deps`").join(name);
    assert!(path.exists(), "`{}` does not exist; run `cargo build --release --bins --examples`", path.display());
    path
}
