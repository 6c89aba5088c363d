//! Writes `model.pt` and `model-raw.pt`: the TorchScript module of a run with its trained weights.

use std::error::Error;
use std::io;
use std::path::Path;

use lockstep_common::manifest::TensorEntry;
use lockstep_export::{TorchScriptError, Weight, replace_weights};
use lockstep_store::BlobStore;
use tokio::process::Command;

use crate::runs::local::worker_program;
use crate::terminal::{Exit, Failure};

/// Writes the module `original` to `to` with the values of `entries`, whose pieces are in `store`. It runs no code of the module.
pub(super) fn write(original: &Path, to: &Path, entries: &[TensorEntry], store: &BlobStore) -> Result<(), Failure> {
    let weights: Vec<Weight> = entries.iter().map(weight).collect();
    let mut read = |name: &str| {
        let entry = entries.iter().find(|entry| entry.name == name).ok_or(io::ErrorKind::NotFound)?;
        let pieces = entry.pieces.iter().map(|piece| store.get(piece).map_err(io::Error::other));
        Ok(pieces.collect::<io::Result<Vec<_>>>()?.concat())
    };
    replace_weights(original, to, &weights, &mut read).map_err(|error| failure(&error))
}

fn weight(entry: &TensorEntry) -> Weight<'_> {
    let TensorEntry { name, dtype, shape, .. } = entry;
    Weight { name, dtype, shape }
}

fn failure(error: &TorchScriptError) -> Failure {
    let failure = Failure::caused(Exit::Local, error as &dyn Error);
    match error {
        TorchScriptError::Io { .. } | TorchScriptError::Weight { .. } => failure,
        _ => failure
            .context("cannot write the trained weights into the TorchScript module")
            .hint("pass `--without-module` to export the weights alone, and load them into the model in Python"),
    }
}

/// Writes a module that takes raw inputs: `original` with the `weights` of a safetensors file and with `preprocessing`, in JSON. The
/// program `worker-rank` loads the module with libtorch, which runs the module's code.
pub(super) async fn write_raw(original: &Path, weights: &Path, to: &Path, preprocessing: &str) -> Result<(), Failure> {
    let program = worker_program()?.with_file_name("worker-rank");
    let mut command = Command::new(&program);
    command.arg("export-script").args([original, weights, to]).arg(preprocessing);
    let output = command.output().await;
    let output =
        output.map_err(|error| Failure::new(Exit::Local, format!("cannot start `{}`: {error}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(Exit::Local, format!("cannot write the TorchScript module `{}`: {}", to.display(), said.trim())))
}
