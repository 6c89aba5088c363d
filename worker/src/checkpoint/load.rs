//! Resuming: every blob is verified, and everything that this program derives is compared with what was stored, before
//! the state changes at all.

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

/// A checkpoint that cannot be resumed from.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was made by another job.
    #[error("the checkpoint is of job `{stored}`, this run trains job `{own}`")]
    Job {
        /// Digest in the manifest.
        stored: String,
        /// Digest of this run's job.
        own: String,
    },
    /// The model has a tensor that the checkpoint lacks, or the other way round.
    #[error("the {whose} has no tensor `{name}`")]
    Missing {
        /// `checkpoint` or `model`.
        whose: &'static str,
        /// The tensor.
        name: String,
    },
    /// A tensor of another type or shape.
    #[error("tensor `{name}` is {stored} in the checkpoint and {own} in the model")]
    Form {
        /// The tensor.
        name: String,
        /// Type and shape in the manifest.
        stored: String,
        /// Type and shape in the model.
        own: String,
    },
    /// A tensor's pieces have not as many bytes as its shape asks for.
    #[error("tensor `{name}` has {found} bytes in the checkpoint where its shape asks for {expected}")]
    Length {
        /// The tensor.
        name: String,
        /// Bytes in the manifest.
        found: u64,
        /// Bytes of its shape.
        expected: u64,
    },
    /// A blob is missing, truncated or corrupt.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The checkpoint has another number of ranks.
    #[error("the checkpoint has {stored} ranks, the job {own}")]
    RankCount {
        /// In the manifest.
        stored: usize,
        /// In the job.
        own: u32,
    },
    /// What is derived for a rank is not what was stored.
    #[error("rank {rank}: {what} is `{stored}` in the checkpoint, and `{derived}` is derived for the same step")]
    Rank {
        /// The rank.
        rank: u32,
        /// Seed, cursor or generator.
        what: String,
        /// In the manifest.
        stored: String,
        /// Computed now.
        derived: String,
    },
    /// libtorch failed.
    #[error("libtorch could not load the checkpoint")]
    Torch(#[from] TchError),
    /// libtorch failed, behind our own shim.
    #[error("libtorch could not load the checkpoint")]
    Shim(#[from] lockstep_tch_ext::Error),
}

/// Puts `state` where `manifest` says it was. With `other_data` sample positions need not be those of the checkpoint: where
/// a rank was, and is.
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
        // The first rank that is elsewhere, if one is.
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
    // A checkpoint of parameters that took part in every step has none, as has one of a build that did not count them.
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

/// The verified contents of `entry`, which must look like `own`.
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

/// Where a rank reads next.
fn place(rank: &RankState) -> String {
    format!("epoch {}, sample {} next (rank {})", rank.epoch, rank.next_position, rank.rank)
}

/// Compares what is derived for a rank with what was stored. With `other_data` the rank's place in the data may differ: what
/// it was and is.
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
        // The order of samples is the epoch's.
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
        // A checkpoint of CUDA processes has states by their devices' numbers, which are not this process's.
        let kind = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
        let own = draft.generators.iter().find(|(name, _)| kind(name) == kind(device)).map(|(_, bytes)| bytes);
        // Verified also where this process has no such device.
        let bytes = store.get(piece)?;
        if own.is_some_and(|own| *own != bytes) {
            let digest = |bytes: &[u8]| Domain::Blob.digest(bytes).to_hex();
            let own = own.map(|own| digest(own)).unwrap_or_default();
            return mismatch(format!("the state of generator `{device}`"), digest(&bytes), own);
        }
    }
    Ok(moved)
}
