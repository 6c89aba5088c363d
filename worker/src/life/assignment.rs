//! The assignment from the agent, decoded and checked.

use std::path::PathBuf;

use lockstep_common::Digest;
use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{DataFile, Manifest, Piece};
use lockstep_rpc::Replay;
use lockstep_store::BlobStore;
use tch::Device;

use super::ended::Stop;
use crate::observe::parse_device;

/// What this process trains, and the checkpoint that it begins from.
pub(super) struct Assignment {
    pub(super) job: JobSpec,
    pub(super) base_dir: PathBuf,
    pub(super) device: Device,
    pub(super) data: Vec<DataFile>,
    pub(super) store: PathBuf,
    /// The checkpoint to begin from: its id, and the blob of its manifest.
    pub(super) restore: Option<(Digest, Piece)>,
    /// Shared by the processes of the generation; proves membership when they connect.
    pub(super) secret: [u8; 32],
    pub(super) replay: Option<Replay>,
    pub(super) judge_at: Vec<u64>,
}

impl Assignment {
    pub(super) fn parse(raw: lockstep_rpc::Assignment) -> Result<Self, Stop> {
        let job = JobSpec::from_canonical(&raw.job).map_err(Stop::failed)?;
        let device = parse_device(&raw.device)
            .ok_or_else(|| Stop::for_good(format!("device `{}`: expected `cpu` or `cuda:N`", raw.device)))?;
        let data = raw.data.into_iter().map(DataFile::try_from).collect::<Result<_, _>>();
        let data = data.map_err(|_| {
            Stop::for_good(
                "malformed data digest in the assignment: use one version of Lockstep on all machines".to_owned(),
            )
        })?;
        let restore = raw.restore.map(|restore| {
            let id: [u8; 32] = restore.checkpoint.try_into().ok()?;
            Some((Digest::from_bytes(id), restore.manifest?.try_into().ok()?))
        });
        let bad = || {
            Stop::for_good(
                "malformed checkpoint in the assignment: use one version of Lockstep on all machines".to_owned(),
            )
        };
        let restore = restore.map(|restore| restore.ok_or_else(bad)).transpose()?;
        let secret = raw.secret.as_slice().try_into();
        let secret = secret.map_err(|_| {
            Stop::for_good(
                "no secret of 32 bytes in the assignment: use one version of Lockstep on all machines".to_owned(),
            )
        })?;
        let (base_dir, store) = (raw.base_dir.into(), raw.store.into());
        Ok(Self { job, base_dir, device, data, store, restore, secret, replay: raw.replay, judge_at: raw.judge_at })
    }
}

/// Reads the manifest of checkpoint `id` from the blob `piece`, and verifies that its id is `id`.
pub(super) fn manifest(store: &BlobStore, (id, piece): &(Digest, Piece)) -> Result<Manifest, Stop> {
    let bytes = store.get(piece).map_err(Stop::failed)?;
    if Manifest::id(&bytes) != *id {
        return Err(Stop::for_good(format!("blob `{}` is not the manifest of checkpoint `{id}`", piece.digest)));
    }
    Manifest::decode(&bytes).map_err(Stop::failed)
}
