//! An assignment as the agent brings it, checked.

use std::path::PathBuf;

use lockstep_common::Digest;
use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{DataFile, Manifest, Piece};
use lockstep_rpc::Replay;
use lockstep_store::BlobStore;
use tch::Device;

use super::ended::Stop;
use crate::observe::parse_device;

/// What this process trains, and from where on.
pub(super) struct Assignment {
    pub(super) job: JobSpec,
    pub(super) base_dir: PathBuf,
    pub(super) device: Device,
    pub(super) data: Vec<DataFile>,
    pub(super) store: PathBuf,
    /// The checkpoint, by its id and the blob of its manifest.
    pub(super) restore: Option<(Digest, Piece)>,
    /// Known to the processes of the generation.
    pub(super) secret: [u8; 32],
    pub(super) replay: Option<Replay>,
    pub(super) judge_at: Vec<u64>,
}

impl Assignment {
    pub(super) fn parse(raw: lockstep_rpc::Assignment) -> Result<Self, Stop> {
        let job = JobSpec::from_canonical(&raw.job).map_err(Stop::failed)?;
        let device =
            parse_device(&raw.device).ok_or_else(|| Stop::for_good(format!("`{}` is not a device", raw.device)))?;
        let data = raw.data.into_iter().map(DataFile::try_from).collect::<Result<_, _>>();
        let data = data.map_err(|_| Stop::for_good("the assignment has a data digest that is none".to_owned()))?;
        let restore = raw.restore.map(|restore| {
            let id: [u8; 32] = restore.checkpoint.try_into().ok()?;
            Some((Digest::from_bytes(id), restore.manifest?.try_into().ok()?))
        });
        let bad = || Stop::for_good("the assignment names a checkpoint that is none".to_owned());
        let restore = restore.map(|restore| restore.ok_or_else(bad)).transpose()?;
        let secret = raw.secret.as_slice().try_into();
        let secret = secret.map_err(|_| Stop::for_good("the assignment has no secret of 32 bytes".to_owned()))?;
        let (base_dir, store) = (raw.base_dir.into(), raw.store.into());
        Ok(Self { job, base_dir, device, data, store, restore, secret, replay: raw.replay, judge_at: raw.judge_at })
    }
}

/// The manifest of the checkpoint `id`, whose blob is `piece`.
pub(super) fn manifest(store: &BlobStore, (id, piece): &(Digest, Piece)) -> Result<Manifest, Stop> {
    let bytes = store.get(piece).map_err(Stop::failed)?;
    if Manifest::id(&bytes) != *id {
        return Err(Stop::for_good(format!("blob `{}` is not the manifest of checkpoint `{id}`", piece.digest)));
    }
    Manifest::decode(&bytes).map_err(Stop::failed)
}
