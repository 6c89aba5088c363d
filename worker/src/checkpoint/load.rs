//! Loads a checkpoint. Every blob is verified, and every derived value is compared with the stored one, before the state is changed.

use std::collections::BTreeMap;

use lockstep_common::Domain;
use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{Manifest, Override, RankState, TensorEntry};
use lockstep_store::{BlobError, BlobStore};
use lockstep_tch_ext::memory::filled;
use lockstep_tch_ext::optim;
use tch::{Device, Kind, TchError, Tensor};

use super::rank_state::{RankDraft, Ranks};
use super::state::{STEPS, State, dtype};

const EPOCH: &str = "the epoch";
const POSITION: &str = "the next sample position";

/// Why a checkpoint cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Another job made the checkpoint.
    #[error("the checkpoint belongs to job `{stored}`, but this run trains job `{own}`")]
    Job {
        /// Digest in the manifest.
        stored: String,
        /// Digest of this run's job.
        own: String,
    },
    /// The checkpoint lacks a tensor of the model, or the model lacks a tensor of the checkpoint.
    #[error("the {whose} has no tensor `{name}`")]
    Missing {
        /// `checkpoint` or `model`.
        whose: &'static str,
        /// Name of the tensor, as in the manifest.
        name: String,
    },
    /// A tensor has another type or shape in the checkpoint than in the model.
    #[error("tensor `{name}` is {stored} in the checkpoint, but {own} in the model")]
    Form {
        /// Name of the tensor, as in the manifest.
        name: String,
        /// Type and shape in the manifest.
        stored: String,
        /// Type and shape in the model.
        own: String,
    },
    /// The length of a tensor's pieces does not fit its shape.
    #[error("tensor `{name}` has {found} bytes in the checkpoint, but its shape needs {expected}")]
    Length {
        /// Name of the tensor, as in the manifest.
        name: String,
        /// Bytes of its pieces in the manifest.
        found: u64,
        /// Bytes that its shape and type need.
        expected: u64,
    },
    /// A blob is missing, truncated or corrupt.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The checkpoint has another number of ranks.
    #[error("the checkpoint has {stored} ranks, but the job has {own}")]
    RankCount {
        /// Number of ranks in the manifest.
        stored: usize,
        /// Number of ranks in the job.
        own: u32,
    },
    /// A value that is derived for a rank differs from the stored one.
    #[error(
        "rank {rank}: {what} is `{stored}` in the checkpoint, but `{derived}` is derived from the job and the data for the same step"
    )]
    Rank {
        /// Number of the rank.
        rank: u32,
        /// The seed, position or generator, in words.
        what: String,
        /// Value in the manifest; for a generator, the digest of its state.
        stored: String,
        /// Value that this process derived.
        derived: String,
    },
    /// An operator of libtorch failed.
    #[error("libtorch could not load the checkpoint")]
    Torch(#[from] TchError),
    /// libtorch failed in a call of Lockstep's C++ shim.
    #[error("libtorch could not load the checkpoint")]
    Shim(#[from] lockstep_tch_ext::Error),
}

/// Loads the state of `manifest` into `state`.
///
/// With `other_data` the sample positions may differ from the checkpoint's; the answer is then the old and the new position of the first
/// rank that moved, or of the first rank if none moved. Without `other_data` the answer is `None`.
///
/// # Errors
/// After an error `state` is unchanged, unless libtorch failed while it copied the tensors into `state`.
pub fn load(
    manifest: &Manifest,
    job: &JobSpec,
    ranks: &Ranks,
    store: &BlobStore,
    state: &mut State,
    other_data: bool,
) -> Result<Option<Override>, LoadError> {
    let (stored, own) = (manifest.job, job.digest());
    if stored != own {
        return Err(LoadError::Job { stored: stored.to_hex(), own: own.to_hex() });
    }
    if manifest.ranks.len() != job.ranks as usize {
        return Err(LoadError::RankCount { stored: manifest.ranks.len(), own: job.ranks });
    }
    let mut derived: Option<Override> = None;
    for (draft, stored) in ranks.at(manifest.step, 0..job.ranks)?.iter().zip(&manifest.ranks) {
        let anew = check_rank(draft, stored, store, other_data)?;
        let moved = |one: &Override| one.was != one.now;
        // The first rank whose position differs, if there is one.
        derived = derived.filter(|one| moved(one) || !anew.as_ref().is_some_and(moved)).or(anew);
    }
    let mut entries: BTreeMap<&str, &TensorEntry> =
        manifest.tensors.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut loaded = Vec::with_capacity(state.tensors().len());
    for named in state.tensors() {
        let Some(entry) = entries.remove(named.name.as_str()) else {
            return Err(LoadError::Missing { whose: "checkpoint", name: named.name.clone() });
        };
        loaded.push(read(entry, &named.tensor, store)?);
    }
    // Absent if all parameters took part in every step, and in checkpoints of older versions, which did not count.
    let steps = entries.remove(STEPS).map(|entry| {
        let own = Tensor::f_zeros([state.model.parameters().len() as i64], (Kind::Int64, Device::Cpu))?;
        read(entry, &own, store)
    });
    let steps = steps.transpose()?;
    if let Some(name) = entries.into_keys().next() {
        return Err(LoadError::Missing { whose: "model", name: name.to_owned() });
    }

    tch::no_grad(|| -> Result<(), LoadError> {
        let mut optimizer = Vec::new();
        for (named, tensor) in state.tensors().iter().zip(loaded) {
            match named.name.strip_prefix("optimizer/") {
                Some(name) => optimizer.push((name.to_owned(), tensor)),
                None => drop(named.tensor.shallow_clone().f_copy_(&tensor)?),
            }
        }
        optimizer.extend(steps.map(|steps| (optim::STEPS.to_owned(), steps)));
        Ok(state.optimizer.load_state(&optimizer)?)
    })?;
    state.step = manifest.step;
    Ok(derived)
}

/// Reads and verifies the contents of `entry`, which must have the type and shape of `own`.
fn read(entry: &TensorEntry, own: &Tensor, store: &BlobStore) -> Result<Tensor, LoadError> {
    let form = |dtype: &str, shape: &[i64]| format!("{dtype} {shape:?}");
    let (stored, ours) = (form(&entry.dtype, &entry.shape), form(&dtype(own), &own.size()));
    if stored != ours {
        return Err(LoadError::Form { name: entry.name.clone(), stored, own: ours });
    }
    let expected = (own.numel() * own.kind().elt_size_in_bytes()) as u64;
    let found = entry.pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes)).unwrap_or(u64::MAX);
    if found != expected {
        return Err(LoadError::Length { name: entry.name.clone(), found, expected });
    }
    filled(&own.size(), own.kind(), |bytes| Ok(store.get_into(&entry.pieces, bytes)?))
}

/// The next sample of a rank, in words.
fn place(rank: &RankState) -> String {
    format!("epoch {}, sample {} next (rank {})", rank.epoch, rank.next_position, rank.rank)
}

/// Compares the derived state of a rank with the stored one. With `other_data` its position in the data may differ, and the answer is the
/// old and the new position.
fn check_rank(
    draft: &RankDraft,
    stored: &RankState,
    store: &BlobStore,
    other_data: bool,
) -> Result<Option<Override>, LoadError> {
    let derived = &draft.state;
    let moved =
        other_data.then(|| Override { key: "data.positions".to_owned(), was: place(stored), now: place(derived) });
    let mismatch = |what: String, stored: String, derived: String| {
        Err(LoadError::Rank { rank: draft.state.rank, what, stored, derived })
    };
    for (name, seed) in &stored.seeds {
        let own = derived.seeds.get(name);
        // The seed of the order depends on the epoch, which may differ with other data.
        if own != Some(seed) && !(other_data && name == "order") {
            let own = own.map_or_else(|| "(none)".to_owned(), u64::to_string);
            return mismatch(format!("the seed `{name}`"), seed.to_string(), own);
        }
    }
    for (what, stored, derived) in [
        ("the rank", u64::from(stored.rank), u64::from(derived.rank)),
        ("the number of seeds", stored.seeds.len() as u64, derived.seeds.len() as u64),
        (EPOCH, stored.epoch, derived.epoch),
        ("the number of consumed samples", stored.consumed, derived.consumed),
        (POSITION, stored.next_position, derived.next_position),
    ] {
        if stored != derived && !(moved.is_some() && matches!(what, EPOCH | POSITION)) {
            return mismatch(what.to_owned(), stored.to_string(), derived.to_string());
        }
    }
    for (device, piece) in &stored.generators {
        // Checkpoints name CUDA generators by the device index of the process that wrote them; this process may have another index.
        let kind = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
        let own = draft.generators.iter().find(|(name, _)| kind(name) == kind(device)).map(|(_, bytes)| bytes);
        // The blob is verified even if this process has no such device.
        let bytes = store.get(piece)?;
        if own.is_some_and(|own| *own != bytes) {
            let digest = |bytes: &[u8]| Domain::Blob.digest(bytes).to_hex();
            let own = own.map(|own| digest(own)).unwrap_or_default();
            return mismatch(format!("the state of generator `{device}`"), digest(&bytes), own);
        }
    }
    Ok(moved)
}
