//! What several tests need: PyTorch itself, to compare with.

use std::path::Path;
use std::process::Command;

/// Runs `tests/python/<script>` through the Python whose torch the shim was built against; fails with its words.
pub(crate) fn python(script: &str, arguments: &[&Path]) {
    let output = Command::new(env!("LOCKSTEP_PYTHON"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script))
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("python starts");
    assert!(output.status.success(), "python failed: {}", String::from_utf8_lossy(&output.stderr));
}
