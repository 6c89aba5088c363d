//! Loaded: data, model and state of the assignment are in memory, and the process listens for its peers.

use lockstep_common::manifest::Override;
use lockstep_common::preprocessing::OF_CHECKPOINT;
use lockstep_data::files::{self, Located, Reading};
use lockstep_exchange::Listener;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{Derived, Ready};
use lockstep_store::BlobStore;

use super::Options;
use super::agent::AgentConnection;
use super::assignment::{self, Assignment};
use super::ended::Stop;
use super::fault;
use crate::evidence::numerics;
use crate::program::{OtherData, Setup, Source};
use crate::step::Trainer;

/// A process that has reported `Ready`.
pub(super) struct Loaded {
    pub(super) trainer: Trainer,
    /// The store for checkpoints; `None` for a replay, which writes none.
    pub(super) store: Option<BlobStore>,
    pub(super) listener: Listener,
    /// Shared by the processes of the generation.
    pub(super) secret: [u8; 32],
}

impl Loaded {
    /// Waits for the assignment, loads data, model and state, and reports `Ready`.
    pub(super) fn load(source: &dyn Source, options: &Options, agent: &AgentConnection) -> Result<Self, Stop> {
        let Assignment { job, base_dir, device, data, store, restore, secret, replay, judge_at } =
            Assignment::parse(agent.assigned())?;
        // It hashes this program's file, so it runs while the model is built.
        let environment = std::thread::spawn(move || numerics::environment(device));
        numerics::apply(&job).map_err(Stop::failed)?;
        let store = BlobStore::existing(&store).map_err(Stop::failed)?;
        let restore = restore.map(|restore| assignment::manifest(&store, &restore)).transpose()?;
        let files = files::listed(&data, &store).map_err(Stop::failed)?;
        let other_revision = job.data.revision().is_some();
        let located = files::locate(&base_dir, &files, &store, other_revision, Reading::of(&job));
        let Located { files: found, watch } = located.map_err(Stop::failed)?;
        // Data that differs from the checkpoint's is assigned only if a person accepted it.
        let other_data = restore.as_ref().and_then(|manifest| OtherData::between(&manifest.data, &data));
        let files = files.into_iter().map(|file| file.path).collect();
        let setup = Setup::new(job, found, files, device).on(other_data);
        let restore = restore.as_ref().map(|manifest| (manifest, &store));
        let trainer = Trainer::load(source, setup, restore).map_err(Stop::failed)?;
        let mut environment = environment.join().unwrap_or_default();
        environment.extend(fault::named().map(|fault| ("fault".to_owned(), fault)));
        environment.extend(trainer.note().map(|note| ("preprocessing".to_owned(), format!("{OF_CHECKPOINT}{note}"))));
        if let Some(Override { key, was, now }) = trainer.derived().cloned() {
            let overrides = vec![lockstep_rpc::Override { key, was, now }];
            agent.outbox().push(Body::Derived(Derived { overrides }));
        }
        let listener = Listener::bind(options.bind).map_err(Stop::failed)?;
        agent.outbox().push(Body::Ready(Ready {
            address: listener.local_addr().to_string(),
            numerics: numerics::fingerprint(trainer.job(), trainer.layout(), device).into_iter().collect(),
            environment: environment.into_iter().collect(),
        }));
        let trainer = trainer.watching(watch).judge_at(judge_at.into_iter());
        Ok(match replay {
            // The result of a replay is compared, not stored.
            Some(replay) => {
                Self { trainer: trainer.replay(replay.until, replay.fingerprints_every), store: None, listener, secret }
            }
            None => Self { trainer, store: Some(store), listener, secret },
        })
    }
}
