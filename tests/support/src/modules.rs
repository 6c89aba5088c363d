//! TorchScript modules that programs of Python write.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::printed;

/// The directory with the modules that `script` writes into the folder that it is given. Python writes them once for all
/// tests, into a directory of its own in `kept`.
pub fn modules(script: &Path, kept: &Path) -> PathBuf {
    let folder = script.parent().expect("a script lies somewhere");
    let entries = fs::read_dir(folder).expect("the tests' own folder").map(|entry| entry.expect("an entry").path());
    let mut scripts: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "py")).collect();
    scripts.sort();
    // What the modules hold depends on all scripts, for they share code, and on how libtorch draws and computes.
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
