//! TorchScript modules that Python scripts write for tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::printed;

/// Runs `script`, which writes modules into the folder that is its argument, and returns that folder: a subfolder of `kept`. All
/// tests share the result; the script runs again only if a script beside it has changed.
pub fn modules(script: &Path, kept: &Path) -> PathBuf {
    let folder = script.parent().expect("a script lies somewhere");
    let entries = fs::read_dir(folder).expect("the tests' own folder").map(|entry| entry.expect("an entry").path());
    let mut scripts: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "py")).collect();
    scripts.sort();
    // The modules depend on all scripts, which share code, and on the code path that libtorch draws and computes with.
    let mut named = std::env::var("ATEN_CPU_CAPABILITY").unwrap_or_default().into_bytes();
    named.extend(scripts.iter().flat_map(|path| fs::read(path).expect("a script")));
    let stem = script.file_stem().expect("a script has a name").to_string_lossy();
    let made = kept.join(format!("{stem}-{}", blake3::hash(&named)));
    let lock = File::create(made.with_extension("lock")).expect("the build's own directory");
    lock.lock().expect("nobody holds it for long");
    if !made.exists() {
        let begun = tempfile::tempdir_in(kept).expect("the build's own directory");
        printed(Command::new("python3").arg(script).arg(begun.path()));
        fs::rename(begun.keep(), &made).expect("nobody else makes it");
    }
    made
}
