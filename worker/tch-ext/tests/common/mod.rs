//! What several tests need: PyTorch's own Python, and numbers that both sides can make.

use std::path::Path;
use std::process::Command;

/// Runs a script through the Python whose torch the shim was built against; fails with its words if it fails.
pub fn python(script: &str, arguments: &[&Path]) {
    let output = Command::new(env!("LOCKSTEP_PYTHON"))
        .arg("-c")
        .arg(script)
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("python starts");
    assert!(output.status.success(), "python failed: {}", String::from_utf8_lossy(&output.stderr));
}
