//! `coord export`: a checkpoint as files that other programs read: weights, what they are, where they come from.

use std::borrow::Cow;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use lockstep_common::job::{JobSpec, Model};
use lockstep_common::manifest::{Manifest, Piece, TensorEntry};
use lockstep_host::blobs::{BlobError, BlobStore};
use lockstep_host::data;
use lockstep_rpc::query_request::What;
use safetensors::tensor::{Dtype, View};
use serde::Serialize;
use tokio::process::Command;

use super::args::ExportArguments;
use super::card::card;
use super::client::Client;
use super::error::Failure;
use super::exit::Exit;
use super::local::worker_program;
use super::output::Output;
use super::readers::reports;

/// Names of what is written.
const WEIGHTS: &str = "model.safetensors";
const MODULE: &str = "model.pt";
const CARD: &str = "README.md";
const MANIFEST: &str = "manifest.json";

#[derive(Debug, Serialize)]
struct Report {
    checkpoint: String,
    directory: PathBuf,
    files: Vec<&'static str>,
}

pub(super) async fn export(arguments: ExportArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    let text = client.query(What::Manifest(arguments.checkpoint)).await?;
    let manifest = Manifest::decode(text.as_bytes()).map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
    let job = JobSpec::from_canonical(manifest.job_text.as_bytes())
        .map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
    let metrics = reports(&mut client, manifest.run.to_string()).await?;

    // All is written beside it first: the directory is there with everything, or not at all.
    let to = std::path::absolute(&arguments.to).map_err(|error| disk(&arguments.to, &error))?;
    if fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_some()) || to.is_file() {
        return Err(Failure::new(Exit::Usage, format!("`{}` is there already, and not empty", to.display())));
    }
    let parent = to.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&parent).map_err(|error| disk(&parent, &error))?;
    let work =
        tempfile::Builder::new().prefix(".export-").tempdir_in(&parent).map_err(|error| disk(&parent, &error))?;
    let (blobs, made) = (work.path().join("blobs"), work.path().join("made"));
    fs::create_dir(&made).map_err(|error| disk(&made, &error))?;

    let entries = weights(&manifest);
    let pieces: Vec<Piece> = entries.iter().flat_map(|entry| entry.pieces.iter().cloned()).collect();
    client.fetch(&pieces, &blobs).await?;
    let store = BlobStore::open(&blobs).map_err(|error| Failure::caused(Exit::Local, &error))?;
    write_weights(&entries, &store, &manifest, &made.join(WEIGHTS))?;
    let mut files = vec![CARD, MANIFEST, WEIGHTS];
    if let Model::Torchscript { path, .. } = &job.model {
        let original = original(&client, &manifest, path, &blobs).await?;
        script(&original, &made.join(WEIGHTS), &made.join(MODULE)).await?;
        files.push(MODULE);
    }
    let (path, text) = (made.join(MANIFEST), manifest.encode());
    fs::write(&path, text).map_err(|error| disk(&path, &error))?;
    let path = made.join(CARD);
    let title = files.contains(&MODULE).then_some(MODULE);
    fs::write(&path, card(&manifest, &job, &metrics, title)).map_err(|error| disk(&path, &error))?;
    if to.is_dir() {
        fs::remove_dir(&to).map_err(|error| disk(&to, &error))?;
    }
    fs::rename(&made, &to).map_err(|error| disk(&to, &error))?;

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

fn disk(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Local, format!("cannot write `{}`: {error}", path.display()))
}

/// Parameters and buffers, by the names of a `state_dict`.
fn weights(manifest: &Manifest) -> Vec<TensorEntry> {
    let plain = |entry: &TensorEntry| {
        let name = ["model/", "buffer/"].iter().find_map(|prefix| entry.name.strip_prefix(prefix))?;
        Some(TensorEntry { name: name.to_owned(), ..entry.clone() })
    };
    manifest.tensors.iter().filter_map(plain).collect()
}

fn write_weights(entries: &[TensorEntry], store: &BlobStore, manifest: &Manifest, to: &Path) -> Result<(), Failure> {
    let views = entries.iter().map(|entry| Ok((entry.name.as_str(), Stored::new(entry, store)?)));
    let views: Vec<_> = views.collect::<Result<_, Failure>>()?;
    let metadata = [
        ("format", "pt".to_owned()),
        ("lockstep.checkpoint", Manifest::id(&manifest.encode()).to_string()),
        ("lockstep.run", manifest.run.to_string()),
        ("lockstep.step", manifest.step.to_string()),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    let unwritten =
        |why: &dyn std::fmt::Display| Failure::new(Exit::Local, format!("cannot write `{}`: {why}", to.display()));
    let bytes: u64 = views.iter().map(|(_, view)| view.bytes as u64).sum();
    safetensors::serialize_to_file(views, Some(metadata), to).map_err(|error| unwritten(&error))?;
    // Eight bytes say how long the header is that follows them; then come the tensors.
    let whole = || -> std::io::Result<bool> {
        let mut file = fs::File::open(to)?;
        let mut header = [0; 8];
        file.read_exact(&mut header)?;
        Ok(file.metadata()?.len() == 8 + u64::from_le_bytes(header) + bytes)
    };
    match whole() {
        Ok(true) => Ok(()),
        Ok(false) => Err(unwritten(&"it came out too short")),
        Err(error) => Err(unwritten(&error)),
    }
}

/// A tensor whose bytes lie in the store, verified when they came; read when they are written.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
    pieces: Vec<PathBuf>,
}

impl Stored {
    fn new(entry: &TensorEntry, store: &BlobStore) -> Result<Self, Failure> {
        let dtype = dtype(&entry.dtype).ok_or_else(|| {
            Failure::new(
                Exit::Local,
                format!("safetensors has no elements of type `{}` (`{}`)", entry.dtype, entry.name),
            )
        })?;
        let bytes: u64 = entry.pieces.iter().map(|piece| piece.bytes).sum();
        let there = |piece: &Piece| store.verify(piece);
        let pieces: Result<_, BlobError> = entry.pieces.iter().map(there).collect();
        Ok(Self {
            dtype,
            shape: entry.shape.iter().map(|size| *size as usize).collect(),
            bytes: bytes as usize,
            pieces: pieces.map_err(|error| Failure::caused(Exit::Local, &error))?,
        })
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // What was verified a moment ago and cannot be read now makes a file that is too short, which is an error.
        let read = |path: &PathBuf| fs::read(path).unwrap_or_default();
        Cow::Owned(self.pieces.iter().flat_map(read).collect())
    }

    fn data_len(&self) -> usize {
        self.bytes
    }
}

/// libtorch's name of an element type as safetensors knows it.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float" => Dtype::F32,
        "double" => Dtype::F64,
        "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" => Dtype::I64,
        "int" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        _ => return None,
    })
}

/// The TorchScript file that the run began with: where it lay, or out of the store.
async fn original(client: &Client, manifest: &Manifest, path: &str, blobs: &Path) -> Result<PathBuf, Failure> {
    let Some(file) = manifest.data.iter().find(|file| file.path == path) else {
        return Err(Failure::new(Exit::Local, format!("the checkpoint does not say what `{path}` was")));
    };
    let base_dir = Path::new(&manifest.base_dir);
    if data::verify(base_dir, std::slice::from_ref(file)).is_ok() {
        return Ok(base_dir.join(path));
    }
    let piece = Piece { digest: file.digest, bytes: file.bytes };
    client.fetch(std::slice::from_ref(&piece), blobs).await.map_err(|failure| {
        failure.context(&format!("the module `{path}` is not in `{}` as it was, nor in the store", base_dir.display()))
    })?;
    let store = BlobStore::open(blobs).and_then(|store| store.verify(&piece));
    store.map_err(|error| Failure::caused(Exit::Local, &error))
}

/// Has libtorch write the trained module: this program does without it.
async fn script(module: &Path, weights: &Path, to: &Path) -> Result<(), Failure> {
    let program = worker_program()?.with_file_name("worker-rank");
    let output = Command::new(&program).arg("export-script").args([module, weights, to]).output().await;
    let output =
        output.map_err(|error| Failure::new(Exit::Local, format!("cannot start `{}`: {error}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(Exit::Local, format!("the TorchScript module cannot be written: {}", said.trim())))
}
