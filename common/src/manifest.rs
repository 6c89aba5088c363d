//! The checkpoint manifest: names everything a checkpoint is made of. Its digest is the checkpoint's id.
//!
//! Canonical JSON ([`crate::canonical`]). Tensors and generator states are blobs named by digest; the manifest holds no
//! bulk. Golden file: `golden/manifest.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, DecodeError};
use crate::digest::{Digest, Domain};
use crate::formats::{self, Unreadable};
use crate::id::RunId;
use crate::preprocessing::Preprocessing;
use crate::printable::printable;

/// The format that this program writes; it reads [`formats::MANIFEST`]'s range.
pub const FORMAT: u32 = formats::MANIFEST.written as u32;

/// Tags of one commit that a run keeps, and their bytes together as they are shown ([`printable`]).
pub const MAX_TAGS: usize = 1_000;
/// See [`MAX_TAGS`].
pub const MAX_TAG_BYTES: usize = 64 << 10;

/// Where the code that trained came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeVersion {
    /// Git commit of the work tree that holds the job file.
    pub commit: String,
    /// Branch, if any was checked out.
    pub branch: Option<String>,
    /// URL of the remote `origin`, if any, without credentials.
    pub remote: Option<String>,
    /// Whether the work tree had uncommitted changes.
    pub dirty: bool,
    /// Tags of the commit.
    pub tags: Vec<String>,
    /// Where in the work tree the job's relative paths begin; empty for its root.
    pub directory: String,
    /// What the work tree had that the commit has not: a blob for `lockstep_host::git::restore`.
    pub tree: Option<Piece>,
    /// The commits that the tree builds on, its own and its submodules', if they are not too large.
    pub source: Option<Piece>,
}

impl CodeVersion {
    /// Leaves out tags beyond [`MAX_TAGS`] and [`MAX_TAG_BYTES`], the last ones. How many.
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

/// Something that was not as in the checkpoint that a run was resumed from, and that a person accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// As `numerics.cpu.model` or `data.train.csv`.
    pub key: String,
    /// In the checkpoint.
    pub was: String,
    /// In the run that went on from it.
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
    /// As written in the job; of a directory with a `/` at the end.
    pub path: String,
    /// Size in bytes; of a directory, that of its list.
    pub bytes: u64,
    /// blake3 of the contents; of a directory, of its list.
    pub digest: Digest,
}

/// A part of a tensor's bytes: one blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Which blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The tensor that counts, by parameter, the steps that it took part in. Only a state whose counts differ from its steps has it, so
/// it may come and go between a run's checkpoints.
pub const STEPS: &str = "optimizer/steps";

/// One tensor: parameter, buffer or optimizer state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// `model/<name>`, `buffer/<name>` or `optimizer/<state>/<name>`.
    pub name: String,
    /// libtorch's name of the element type in lower case, as `float`, `bfloat16`, `int64`.
    pub dtype: String,
    /// Sizes.
    pub shape: Vec<i64>,
    /// Contents: little-endian elements in row-major order, cut in pieces.
    pub pieces: Vec<Piece>,
}

/// What one rank carries. A resume derives all of it anew and refuses if anything differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankState {
    /// The rank.
    pub rank: u32,
    /// Seeds by stream name, as of the next step.
    pub seeds: BTreeMap<String, u64>,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Samples consumed by this rank in completed steps.
    pub consumed: u64,
    /// The first sample position that the next step reads.
    pub next_position: u64,
    /// Raw states of torch's generators as the next step begins, by device (`cpu`, `cuda:0`): blobs.
    pub generators: BTreeMap<String, Piece>,
}

/// The run's record up to the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPosition {
    /// Steps recorded.
    pub steps: u64,
    /// Chained digest of all of them ([`crate::record::Evidence::chain`]).
    pub digest: Digest,
}

/// What one process wrote of a checkpoint: a blob beside those that it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The tensors of its share, by name.
    pub tensors: Vec<TensorEntry>,
    /// The ranks that it hosts, in order.
    pub ranks: Vec<RankState>,
    /// From process 0.
    pub record: Option<RecordPosition>,
    /// From process 0; none of a program's own data.
    #[serde(default)]
    pub preprocessing: Option<Preprocessing>,
}

impl Share {
    /// The bytes of its blob.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// Reads what [`Share::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        canonical::read("share of a checkpoint", bytes)
    }
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The run that made it.
    pub run: RunId,
    /// Optimizer steps completed.
    pub step: u64,
    /// Epoch of the next step.
    pub epoch: u64,
    /// The checkpoint that the run was resumed from.
    pub parent: Option<Digest>,
    /// Digest of `job_text`.
    pub job: Digest,
    /// The job in canonical form.
    pub job_text: String,
    /// Where relative paths of the job begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The data.
    pub data: Vec<DataFile>,
    /// How its samples become inputs. None of a program's own data, and in manifests that older builds made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// What the processes ran on, as measured by process 0.
    pub environment: BTreeMap<String, String>,
    /// What is known to change bits; equal in all processes.
    pub numerics: BTreeMap<String, String>,
    /// What was otherwise than in a checkpoint that was resumed from, by a person's word, here or before: oldest first.
    pub overrides: Vec<Override>,
    /// Digest of all tensors' names, types, shapes and contents: equal states have equal digests.
    pub state: Digest,
    /// All tensors, by name.
    pub tensors: Vec<TensorEntry>,
    /// All ranks, in order.
    pub ranks: Vec<RankState>,
    /// The record so far.
    pub record: RecordPosition,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest in canonical form.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Made by a version whose format is not read.
    #[error(transparent)]
    Format(#[from] Unreadable),
    /// Its parts contradict each other.
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(String),
}

impl Manifest {
    /// The bytes whose digest names the checkpoint.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// Reads and checks what [`Manifest::encode`] wrote, in this format or an earlier one. Its bytes stay the ones that they are: encoded
    /// again they are equal.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        // First of all: the keys of a later format are unknown here.
        let head: Head = canonical::read("checkpoint manifest", bytes)?;
        formats::MANIFEST.check(u64::from(head.format))?;
        let manifest: Self = canonical::decode("checkpoint manifest", bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The checkpoint's id.
    pub fn id(bytes: &[u8]) -> Digest {
        Domain::Manifest.digest(bytes)
    }

    /// Whether the parts agree with each other.
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
            return inconsistent("`tensors` are not sorted, or one stands twice");
        }
        if self.tensors.is_empty() {
            return inconsistent("it has no tensors");
        }
        for entry in &self.tensors {
            entry.check().map_err(|why| ManifestError::Inconsistent(format!("tensor `{}` {why}", entry.name)))?;
        }
        if !self.ranks.iter().map(|state| state.rank).eq(0..self.ranks.len() as u32) || self.ranks.is_empty() {
            return inconsistent("`ranks` are not complete and in order");
        }
        Ok(())
    }
}

/// Dimensions of a tensor: libtorch has no more.
const MAX_DIMENSIONS: usize = 64;

/// Bytes of one element of a type by libtorch's name; none for a type that this program does not know.
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
    /// Bytes of all pieces; none if they are more than a file can have.
    pub fn bytes(&self) -> Option<u64> {
        let sum = self.pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes))?;
        i64::try_from(sum).is_ok().then_some(sum)
    }

    /// Elements of its shape; none if a size is negative or they are too many.
    pub fn elements(&self) -> Option<u64> {
        let sizes = self.shape.iter().map(|&size| u64::try_from(size).ok());
        let count = sizes.into_iter().try_fold(1_u64, |count, size| count.checked_mul(size?))?;
        i64::try_from(count).is_ok().then_some(count)
    }

    /// Whether pieces, shape and type agree.
    fn check(&self) -> Result<(), String> {
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(format!("has {} dimensions, more than {MAX_DIMENSIONS}", self.shape.len()));
        }
        let bytes = self.bytes().ok_or("has more bytes than a file can have")?;
        let elements = self.elements().ok_or_else(|| format!("has the shape {:?}, which no tensor has", self.shape))?;
        let Some(expected) = element_bytes(&self.dtype).and_then(|each| each.checked_mul(elements)) else {
            return Err(format!("has the type `{}`, which this program does not know", self.dtype));
        };
        if bytes == expected {
            Ok(())
        } else {
            Err(format!("is {} {:?} and has {bytes} bytes, not {expected}", self.dtype, self.shape))
        }
    }
}

/// The digest of a data set: paths, sizes and contents of `files`, in whatever order they are given.
pub fn data_digest(files: &[DataFile]) -> Digest {
    let mut sorted: Vec<&DataFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    Domain::Data.digest(&canonical::encode(&sorted))
}

/// The digest of a state: names, types, shapes and contents of `tensors`, which are sorted by name.
pub fn state_digest(tensors: &[TensorEntry]) -> Digest {
    let mut hasher = Domain::State.hasher();
    hasher.update(&canonical::encode(&tensors));
    Digest::of(&hasher)
}
