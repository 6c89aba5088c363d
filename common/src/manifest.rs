//! The checkpoint manifest: names all parts of a checkpoint. Its digest is the checkpoint's id.
//!
//! It is canonical JSON ([`crate::canonical`]) and contains no tensor data: tensors and generator states are blobs, named by digest.
//! Golden file: `golden/manifest.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, DecodeError};
use crate::digest::{Digest, Domain};
use crate::formats::{self, Unreadable};
use crate::id::RunId;
use crate::preprocessing::Preprocessing;
use crate::printable::printable;

/// The format that this program writes. [`formats::MANIFEST`] has the range that it reads.
pub const FORMAT: u32 = formats::MANIFEST.written as u32;

/// The most Git tags of one commit that a run stores.
pub const MAX_TAGS: usize = 1_000;
/// The most bytes that these tags may have together, as they are displayed ([`printable`]).
pub const MAX_TAG_BYTES: usize = 64 << 10;

/// The version of the code that a run trained with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeVersion {
    /// Git commit of the work tree that holds the job file.
    pub commit: String,
    /// Branch that was checked out; `None` if the head was detached.
    pub branch: Option<String>,
    /// URL of the remote `origin` without credentials; `None` if there is no such remote.
    pub remote: Option<String>,
    /// Whether the work tree had uncommitted changes.
    pub dirty: bool,
    /// Git tags of the commit, at most [`MAX_TAGS`].
    pub tags: Vec<String>,
    /// Directory in the work tree that the job's paths are relative to; empty for the root.
    pub directory: String,
    /// Uncommitted changes of the work tree: a blob for `lockstep_host::git::restore`.
    pub tree: Option<Piece>,
    /// Git objects of the commit and of its submodules' commits; `None` if they are too large to store.
    pub source: Option<Piece>,
}

impl CodeVersion {
    /// Drops the last tags until [`MAX_TAGS`] and [`MAX_TAG_BYTES`] hold. Returns the number of dropped tags.
    pub fn limit_tags(&mut self) -> usize {
        let mut bytes = 0;
        let fits = |tag: &&String| {
            bytes += printable(tag).len();
            bytes <= MAX_TAG_BYTES
        };
        let fitting = self.tags.iter().take(MAX_TAGS).take_while(fits).count();
        let left_out = self.tags.len() - fitting;
        self.tags.truncate(fitting);
        left_out
    }
}

/// A difference between a resumed run and its checkpoint that a person accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Name of the compared value, such as `numerics.cpu.model` or `data.train.csv`.
    pub key: String,
    /// Value in the checkpoint.
    pub was: String,
    /// Value in the resumed run.
    pub now: String,
}

impl std::fmt::Display for Override {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} was `{}`, is `{}`", self.key, self.was, self.now)
    }
}

/// One file of the data, or one directory: [`crate::listing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Path as written in the job. A directory's path ends with `/`.
    pub path: String,
    /// Size in bytes: of the file, or of the directory's file list.
    pub bytes: u64,
    /// blake3 of the file's contents, or of the directory's file list.
    pub digest: Digest,
}

/// A blob with its size, for example one piece of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The blob's name in the store.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub bytes: u64,
}

/// Name of the tensor that counts, for each parameter, the steps that updated it. A state has this tensor only if a count differs from
/// the number of completed steps, so some checkpoints of a run may have it and others not.
pub const STEPS: &str = "optimizer/steps";

/// One tensor: parameter, buffer or optimizer state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// `model/<name>`, `buffer/<name>` or `optimizer/<state>/<name>`.
    pub name: String,
    /// libtorch's name of the element type in lower case, as `float`, `bfloat16`, `int64`.
    pub dtype: String,
    /// Size of each dimension, outermost first; empty for a scalar.
    pub shape: Vec<i64>,
    /// Contents: little-endian elements in row-major order, split into blobs.
    pub pieces: Vec<Piece>,
}

/// The state of one rank. A resume computes these values again and rejects the checkpoint if one differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankState {
    /// Logical rank, from 0.
    pub rank: u32,
    /// Seeds of the next step, by stream name.
    pub seeds: BTreeMap<String, u64>,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Samples consumed by this rank in completed steps.
    pub consumed: u64,
    /// The first sample position that this rank reads in the next step.
    pub next_position: u64,
    /// Raw states of torch's random generators at the start of the next step: a blob for each device (`cpu`, `cuda:0`).
    pub generators: BTreeMap<String, Piece>,
}

/// The run's record up to the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPosition {
    /// Number of recorded steps.
    pub steps: u64,
    /// Chained digest of these steps ([`crate::record::Evidence::chain`]).
    pub digest: Digest,
}

/// One process's share of a checkpoint. It is a blob itself and names the blobs that the process wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The tensors that this process wrote, sorted by name.
    pub tensors: Vec<TensorEntry>,
    /// The ranks that this process hosts, in order.
    pub ranks: Vec<RankState>,
    /// Only in the share of process 0.
    pub record: Option<RecordPosition>,
    /// Only in the share of process 0; `None` if a program reads its own data.
    #[serde(default)]
    pub preprocessing: Option<Preprocessing>,
}

impl Share {
    /// The bytes of the share's blob.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// Decodes bytes that [`Share::encode`] returned.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        canonical::read("share of a checkpoint", bytes)
    }
}

/// The manifest of one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version; [`FORMAT`] in new manifests.
    pub format: u32,
    /// The run that wrote the checkpoint.
    pub run: RunId,
    /// Optimizer steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Id of the checkpoint that the run was resumed from.
    pub parent: Option<Digest>,
    /// Digest of `job_text`.
    pub job: Digest,
    /// The job in canonical form.
    pub job_text: String,
    /// Directory that the job's relative paths begin at.
    pub base_dir: String,
    /// Version of the code; `None` if the job file was not in a Git work tree.
    pub code: Option<CodeVersion>,
    /// Files and directories of the data.
    pub data: Vec<DataFile>,
    /// How samples become model inputs. `None` if a program reads its own data, and in manifests of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// Machine and software of the run, as measured by process 0.
    pub environment: BTreeMap<String, String>,
    /// Properties that are known to change bits; equal in all processes.
    pub numerics: BTreeMap<String, String>,
    /// Accepted differences of this run and of its ancestors from the checkpoints that they were resumed from, oldest first.
    pub overrides: Vec<Override>,
    /// Digest of all tensors' names, types, shapes and contents: equal states have equal digests.
    pub state: Digest,
    /// All tensors, sorted by name.
    pub tensors: Vec<TensorEntry>,
    /// All ranks, in order.
    pub ranks: Vec<RankState>,
    /// The record up to this checkpoint.
    pub record: RecordPosition,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest in canonical form.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Written in a format version that this program cannot read.
    #[error(transparent)]
    Format(#[from] Unreadable),
    /// Two parts contradict each other; the text says which.
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(String),
}

impl Manifest {
    /// The bytes whose digest names the checkpoint.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// Decodes and checks bytes that [`Manifest::encode`] returned, in the present format or an earlier one. Encoding the result gives
    /// the same bytes, also for an earlier format.
    ///
    /// # Errors
    /// `Format` if the version is not readable, `Decode` if the bytes are not canonical, `Inconsistent` if [`Manifest::check`] fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        // The format is checked first, because the keys of a later format are unknown here.
        let head: Head = canonical::read("checkpoint manifest", bytes)?;
        formats::MANIFEST.check(u64::from(head.format))?;
        let manifest: Self = canonical::decode("checkpoint manifest", bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The id of the checkpoint whose manifest has these `bytes`.
    pub fn id(bytes: &[u8]) -> Digest {
        Domain::Manifest.digest(bytes)
    }

    /// Checks that the parts agree with each other: digests, order of tensors, their sizes, and ranks.
    pub fn check(&self) -> Result<(), ManifestError> {
        let inconsistent = |what: &str| Err(ManifestError::Inconsistent(what.to_owned()));
        formats::MANIFEST.check(u64::from(self.format))?;
        if Domain::Job.digest(self.job_text.as_bytes()) != self.job {
            return inconsistent("`job` is not the digest of `job_text`");
        }
        if state_digest(&self.tensors) != self.state {
            return inconsistent("`state` is not the digest of `tensors`");
        }
        if !self.tensors.is_sorted_by(|a, b| a.name < b.name) {
            return inconsistent("`tensors` are not sorted by name, or a name occurs twice");
        }
        if self.tensors.is_empty() {
            return inconsistent("it has no tensors");
        }
        for entry in &self.tensors {
            entry.check().map_err(|why| ManifestError::Inconsistent(format!("tensor `{}` {why}", entry.name)))?;
        }
        if !self.ranks.iter().map(|state| state.rank).eq(0..self.ranks.len() as u32) || self.ranks.is_empty() {
            return inconsistent("`ranks` must be 0, 1, 2, .. without gaps");
        }
        Ok(())
    }
}

/// The most dimensions that libtorch allows a tensor.
const MAX_DIMENSIONS: usize = 64;

/// Bytes of one element of the type that libtorch calls `dtype`; `None` for an unknown type.
fn element_bytes(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "uint8" | "int8" | "bool" | "qint8" | "quint8" | "float8e5m2" | "float8e4m3fn" | "float8e5m2fnuz"
        | "float8e4m3fnuz" => 1,
        "int16" | "half" | "bfloat16" => 2,
        "int" | "float" | "complexhalf" | "qint32" => 4,
        "int64" | "double" | "complexfloat" => 8,
        "complexdouble" => 16,
        _ => return None,
    })
}

impl TensorEntry {
    /// Bytes of all pieces together; `None` if the sum exceeds `i64::MAX`, the largest size of a file.
    pub fn bytes(&self) -> Option<u64> {
        let sum = self.pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes))?;
        i64::try_from(sum).is_ok().then_some(sum)
    }

    /// Number of elements of the shape; `None` if a size is negative or the number exceeds `i64::MAX`.
    pub fn elements(&self) -> Option<u64> {
        let sizes = self.shape.iter().map(|&size| u64::try_from(size).ok());
        let count = sizes.into_iter().try_fold(1_u64, |count, size| count.checked_mul(size?))?;
        i64::try_from(count).is_ok().then_some(count)
    }

    /// Checks that the pieces have exactly the bytes of the shape and type.
    fn check(&self) -> Result<(), String> {
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(format!("has {} dimensions, but at most {MAX_DIMENSIONS} are possible", self.shape.len()));
        }
        let bytes = self.bytes().ok_or("has more bytes than a file can have")?;
        let elements = self.elements().ok_or_else(|| format!("has the impossible shape {:?}", self.shape))?;
        let Some(expected) = element_bytes(&self.dtype).and_then(|each| each.checked_mul(elements)) else {
            return Err(format!("has the unknown element type `{}`", self.dtype));
        };
        if bytes == expected {
            Ok(())
        } else {
            Err(format!("has {bytes} bytes, but {} {:?} needs {expected}", self.dtype, self.shape))
        }
    }
}

/// The digest of a data set: paths, sizes and contents of `files`. The order of `files` does not matter.
pub fn data_digest(files: &[DataFile]) -> Digest {
    let mut sorted: Vec<&DataFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    Domain::Data.digest(&canonical::encode(&sorted))
}

/// The digest of a state: names, types, shapes and contents of `tensors`, which must be sorted by name.
pub fn state_digest(tensors: &[TensorEntry]) -> Digest {
    let mut hasher = Domain::State.hasher();
    hasher.update(&canonical::encode(&tensors));
    Digest::of(&hasher)
}
