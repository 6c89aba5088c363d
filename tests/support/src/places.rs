//! Where things lie: the repository, the cache that set-up fills, programs of this build.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies in `tests/support`").to_owned()
}

/// The cache that set-up fills: libtorch and the larger data sets.
pub fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("LOCKSTEP_CACHE").expect("`. scripts/env.sh` sets LOCKSTEP_CACHE"))
}

/// A program of this build: `coord` or `worker`, beside the directory of the test executables.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test.parent().and_then(Path::parent).expect("tests are built in `deps`").join(name);
    assert!(path.exists(), "{} is not built: `cargo build --release --bins` comes first", path.display());
    path
}
