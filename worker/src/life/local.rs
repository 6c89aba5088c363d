//! The training loop without agent and coordinator: for tests, benchmarks, and programs that start their own processes.

use std::path::Path;

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::Manifest;
use lockstep_exchange::Mesh;
use lockstep_host::data::{self, DataHashError};
use lockstep_store::{BlobError, BlobStore};
use tch::Device;

use crate::evidence::numerics;
use crate::observe::Outbox;
use crate::program::{Setup, Source};
use crate::reduce::{Exchange, MeshExchange};
use crate::step::{Finished, SetupError, TrainError, Trainer};

/// Why a local run failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The run cannot begin.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The run stopped before its last step.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// A directory of the job's data cannot be listed.
    #[error(transparent)]
    Data(#[from] DataHashError),
    /// The switches of `numerics.level` cannot be set.
    #[error("cannot set libtorch's switches")]
    Switches(#[from] lockstep_tch_ext::Error),
}

/// Trains `job` with `source` on the CPU, as one of the processes that `mesh` connects, or alone without one.
///
/// Paths of the job are relative to `base_dir`. With `store` the run writes checkpoints there; with `restore` it begins from that
/// checkpoint, whose blobs must be in `store`. Afterwards `outbox` has all reports. The caller sets the environment variables that
/// libtorch reads (`lockstep_common::numerics::environment`) before it starts the process.
pub fn train(
    source: &dyn Source,
    job: &JobSpec,
    base_dir: &Path,
    mesh: Option<Mesh>,
    store: Option<&Path>,
    restore: Option<&Manifest>,
    outbox: &Outbox,
) -> Result<Finished, LocalError> {
    numerics::apply(job)?;
    let store = store.map(BlobStore::open).transpose()?;
    let restore = restore.zip(store.as_ref());
    let mut files = Vec::new();
    for path in job.data_paths() {
        let at = base_dir.join(path);
        let top = path.trim_end_matches('/');
        if at.is_dir() {
            files.extend(data::list_below(&at)?.iter().map(|file| format!("{top}/{}", file.path)));
        } else {
            files.push(path.to_owned());
        }
    }
    let trainer = Trainer::load(source, Setup::new(job.clone(), base_dir.into(), files, Device::Cpu), restore)?;
    let exchange = mesh.map(|mesh| Box::new(MeshExchange::new(mesh)) as Box<dyn Exchange>);
    Ok(trainer.run(exchange, store, outbox)?)
}
