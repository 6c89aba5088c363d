//! Where things lie: the repository, what set-up installed, programs of this build.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in `tests/support`").to_owned()
}

/// The cache that set-up fills: libtorch, the larger data sets, programs that tests run.
pub fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("LOCKSTEP_CACHE").expect("`. scripts/env.sh` sets LOCKSTEP_CACHE"))
}

/// A program of the tests' own environment.
pub fn tool(name: &str) -> PathBuf {
    let path = cache().join("test-tools/bin").join(name);
    assert!(path.is_file(), "there is no `{}`: `scripts/setup.sh --test` installs it", path.display());
    path
}

/// The Python whose PyTorch this build is linked with.
pub fn torch_python() -> PathBuf {
    cache().join("torch-2.13.0/bin/python3")
}

/// A program of this build, as `coord` or `examples/fake_rank`: it lies beside the directory of the test executables.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test.parent().and_then(Path::parent).expect("tests are built in `deps`").join(name);
    assert!(path.exists(), "{} is not built: `cargo build --release --bins --examples` comes first", path.display());
    path
}
