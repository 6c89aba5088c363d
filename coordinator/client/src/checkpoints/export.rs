//! `coord export`: writes a checkpoint as files for other programs: weights, a model card, the manifest, and a script that predicts. Only
//! `--raw-inputs` runs code of the run.

mod module;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use lockstep_common::job::{JobSpec, Model, Output as ModelOutput};
use lockstep_common::manifest::{DataFile, Manifest, Piece};
use lockstep_host::data;
use lockstep_host::durable::{is_full, sync_dir};
use lockstep_rpc::query_request::What;
use lockstep_store::BlobStore;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::args::ExportArguments;
use crate::checkpoints::card::{Files, Predicts, card};
use crate::connection::Client;
use crate::terminal::{Exit, Failure, Output};
use crate::watch::metrics::Metrics;

/// Names of the exported files.
const WEIGHTS: &str = "model.safetensors";
const MODULE: &str = "model.pt";
const CARD: &str = "README.md";
const MANIFEST: &str = "manifest.json";
const PREDICT: &str = "predict.py";
const RAW_MODULE: &str = "model-raw.pt";
/// Name of the run's original module, which exists only during the export.
const ORIGINAL: &str = "original.pt";

/// `predict.py`, which reads everything about the model from the manifest beside it. The parts are concatenated in this order.
const SCRIPT: &str = concat!(
    include_str!("export/predict/begin.py"),
    include_str!("export/predict/files.py"),
    include_str!("export/predict/models.py"),
    include_str!("export/predict/answers.py"),
);

/// The line of the script that is replaced by the digests of the other files.
const DIGESTS: &str = "EXPORTED = {}";

#[derive(Debug, Serialize)]
struct Report {
    checkpoint: String,
    directory: PathBuf,
    files: Vec<&'static str>,
}

pub(crate) async fn export(arguments: ExportArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    let text = client.query(What::Manifest(arguments.checkpoint)).await?;
    let manifest = Manifest::decode(text.as_bytes()).map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
    let job = JobSpec::from_canonical(manifest.job_text.as_bytes())
        .map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
    let metrics = Metrics::of(&mut client, manifest.run.to_string()).await?;

    let predicts = predicts(&manifest, &job, arguments.without_module);
    let raw_inputs = if arguments.raw_inputs { Some(raw_inputs(&manifest, &job)?) } else { None };

    // Everything is written to a temporary directory first, so that the target gets all files or none.
    let to = std::path::absolute(&arguments.to).map_err(|error| disk(&arguments.to, &error))?;
    if fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_some()) || to.is_file() {
        return Err(occupied(&to));
    }
    let parent = if to.is_dir() { &to } else { to.parent().unwrap_or(Path::new("/")) }.to_owned();
    fs::create_dir_all(&parent).map_err(|error| disk(&parent, &error))?;
    let work =
        tempfile::Builder::new().prefix(".export-").tempdir_in(&parent).map_err(|error| disk(&parent, &error))?;
    let (blobs, made) = (work.path().join("blobs"), work.path().join("made"));
    fs::create_dir(&made).map_err(|error| disk(&made, &error))?;

    let entries = weights::weights(&manifest);
    let pieces: Vec<Piece> = entries.iter().flat_map(|entry| entry.pieces.iter().cloned()).collect();
    client.fetch(&pieces, &blobs).await?;
    let store = BlobStore::open(&blobs).map_err(|error| Failure::caused(Exit::Local, &error))?;
    weights::write(&entries, &store, &manifest, &made.join(WEIGHTS))?;
    let mut files = vec![CARD, MANIFEST, WEIGHTS];
    if let Model::Torchscript { path, .. } = &job.model
        && !arguments.without_module
    {
        let original = original(&client, &manifest, path, &blobs).await?;
        module::write(&original, &made.join(MODULE), &entries, &store)?;
        files.push(MODULE);
        if let Some(preprocessing) = &raw_inputs {
            Output::note(&format!("note: to write `{RAW_MODULE}`, the module `{path}` is loaded, which runs its code"));
            module::write_raw(&original, &made.join(WEIGHTS), &made.join(RAW_MODULE), preprocessing).await?;
            files.push(RAW_MODULE);
        }
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = made.join(name);
        fs::write(&path, bytes).map_err(|error| disk(&path, &error))
    };
    write(MANIFEST, &manifest.encode())?;
    if let Predicts::Script = predicts {
        let digests: Result<BTreeMap<&str, String>, Failure> =
            files.iter().filter(|file| **file != CARD).map(|file| Ok((*file, sha256(&made.join(file))?))).collect();
        let digests = serde_json::to_string(&digests?).expect("texts");
        write(PREDICT, SCRIPT.replacen(DIGESTS, &format!("EXPORTED = {digests}"), 1).as_bytes())?;
        files.push(PREDICT);
    }
    let has = |name| files.contains(&name).then_some(name);
    let named = Files { module: has(MODULE), raw_module: has(RAW_MODULE), predicts };
    write(CARD, card(&manifest, &job, &metrics, &named).as_bytes())?;
    let synced = files.iter().try_for_each(|file| fs::File::open(made.join(file)).and_then(|file| file.sync_all()));
    synced.map_err(|error| disk(&made, &error))?;
    if parent == to {
        // The directory is not replaced: it may be a mount point, or the current directory of a process.
        move_into(&made, &to, &files)?;
    } else {
        fs::rename(&made, &to).map_err(|error| disk(&to, &error))?;
    }
    sync_dir(&to).and_then(|()| sync_dir(&parent)).map_err(|error| disk(&to, &error))?;

    let report = Report { checkpoint: Manifest::id(&manifest.encode()).to_string(), directory: to, files };
    if arguments.reader.json {
        out.json(&report);
    } else {
        for file in &report.files {
            out.line(&report.directory.join(file).display().to_string());
        }
    }
    Ok(Exit::Done)
}

/// Moves `files` from `made` into the empty directory `to`. Of several exports into one directory, only one succeeds.
fn move_into(made: &Path, to: &Path, files: &[&str]) -> Result<(), Failure> {
    let claimed = to.join(CARD);
    if let Err(error) = fs::File::create_new(&claimed) {
        return Err(match error.kind() {
            io::ErrorKind::AlreadyExists => occupied(to),
            _ => disk(to, &error),
        });
    }
    let moved = files.iter().rev().try_for_each(|file| fs::rename(made.join(file), to.join(file)));
    moved.map_err(|error| {
        // Without the card, the remaining files are not taken for an export.
        let _gone = fs::remove_file(&claimed);
        disk(to, &error)
    })
}

/// The SHA-256 of a file in hexadecimal. Python has no other fast digest in its standard library.
fn sha256(path: &Path) -> Result<String, Failure> {
    let mut hasher = Sha256::new();
    let read = fs::File::open(path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    read.map_err(|error| Failure::new(Exit::Local, format!("cannot read `{}`: {error}", path.display())))?;
    Ok(format!("{:x}", hasher.finalize()))
}

fn occupied(to: &Path) -> Failure {
    Failure::new(Exit::Usage, format!("`{}` exists and is not empty", to.display()))
        .hint("pass a new or empty directory with `--to`")
}

fn disk(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Local, format!("cannot write `{}`: {error}", path.display()))
}

/// The TorchScript file of the run: a copy of the job's file, or the blob from the store. It is a copy because the file may be replaced
/// after its digest was checked.
async fn original(client: &Client, manifest: &Manifest, path: &str, blobs: &Path) -> Result<PathBuf, Failure> {
    let Some(file) = manifest.data.iter().find(|file| file.path == path) else {
        return Err(Failure::new(Exit::Local, format!("the checkpoint has no digest of the module `{path}`")));
    };
    let base_dir = Path::new(&manifest.base_dir);
    let copy = blobs.with_file_name(ORIGINAL);
    let copied = DataFile { path: ORIGINAL.to_owned(), ..file.clone() };
    let is_as_it_was = |dir| data::verify(dir, std::slice::from_ref(&copied)).is_ok();
    let from = base_dir.join(path);
    // To open a pipe would block.
    let copying = if from.is_file() { fs::copy(&from, &copy) } else { Err(io::ErrorKind::NotFound.into()) };
    match copying {
        Ok(_) if copy.parent().is_some_and(is_as_it_was) => return Ok(copy),
        Err(error) if is_full(&error) => {
            return Err(disk(&copy, &error));
        }
        _ => {}
    }
    let piece = Piece { digest: file.digest, bytes: file.bytes };
    client.fetch(std::slice::from_ref(&piece), blobs).await.map_err(|failure| {
        let where_not =
            format!("the module `{path}` is missing or changed in `{}`, and not in the store", base_dir.display());
        failure.context(&where_not).hint("pass `--without-module` to export its weights alone")
    })?;
    let store = BlobStore::open(blobs).and_then(|store| {
        store.verify(&piece)?;
        Ok(store.local_path(&piece.digest))
    });
    store.map_err(|error| Failure::caused(Exit::of_blob(&error), &error))
}

/// Whether `predict.py` can be exported, or why not.
fn predicts(manifest: &Manifest, job: &JobSpec, without_module: bool) -> Predicts {
    match (&job.model, &manifest.preprocessing) {
        (Model::Torchscript { .. }, _) if without_module => {
            Predicts::Not("the module was left out: load these weights into it in Python")
        }
        (Model::Program, _) => Predicts::Not("the run's own program computes the predictions"),
        (_, None) => Predicts::Not("the checkpoint has no preprocessing, because an older build wrote it"),
        (_, Some(_)) => Predicts::Script,
    }
}

/// The preprocessing as JSON, for the module that takes raw inputs.
fn raw_inputs(manifest: &Manifest, job: &JobSpec) -> Result<String, Failure> {
    let why = match (&job.model, &manifest.preprocessing) {
        (Model::Torchscript { output: ModelOutput::Loss, .. }, _) => "the module returns a loss, not predictions",
        (Model::Torchscript { .. }, Some(preprocessing)) => {
            return Ok(serde_json::to_string(preprocessing).expect("its floats are finite"));
        }
        (Model::Torchscript { .. }, None) => "the checkpoint has no preprocessing, because an older build wrote it",
        _ => "the model is not a TorchScript module; use `predict.py`, which reads raw files",
    };
    Err(Failure::new(Exit::Usage, format!("`--raw-inputs`: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_exports_into_one_empty_directory_one_is_refused_and_changes_nothing() {
        let to = tempfile::tempdir().unwrap();
        let made = ["first", "second"].map(|words| {
            let made = tempfile::tempdir_in(to.path()).unwrap();
            for file in [CARD, MANIFEST] {
                fs::write(made.path().join(file), words).unwrap();
            }
            made
        });
        move_into(made[0].path(), to.path(), &[CARD, MANIFEST]).unwrap();
        let refused = move_into(made[1].path(), to.path(), &[CARD, MANIFEST]).unwrap_err().render();
        assert!(refused.contains("exists and is not empty"), "{refused}");
        for file in [CARD, MANIFEST] {
            assert_eq!(fs::read_to_string(to.path().join(file)).unwrap(), "first", "{file}");
        }
    }
}
