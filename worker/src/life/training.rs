//! Training: from the first step of this generation to the last step of the run.

use lockstep_host::progress;
use lockstep_store::BlobStore;

use super::Options;
use super::agent::AgentConnection;
use super::ended::Stop;
use super::fault::Fault;
use super::joined::Joined;
use crate::checkpoint::Saving;
use crate::reduce::Exchange;
use crate::step::{Finished, Trainer};

/// A process that trains.
pub(super) struct Training {
    trainer: Trainer,
    store: Option<BlobStore>,
    exchange: Option<Box<dyn Exchange>>,
}

impl Training {
    /// Begins to train, with the injected fault that the environment names for this process, if there is one.
    pub(super) fn begin(joined: Joined, options: &Options) -> Result<Self, Stop> {
        let Joined { trainer, store, exchange } = joined;
        progress::begin(progress::Phase::Training);
        let fault = Fault::from_environment(&trainer.job().name, options.generation, options.process);
        let trainer = match fault.map_err(Stop::for_good)? {
            Some(fault) => trainer.with_hook(fault),
            None => trainer,
        };
        Ok(Self { trainer, store, exchange })
    }

    /// Trains to the last step, and returns when the last checkpoint is committed or given up.
    pub(super) fn finish(self, options: &Options, agent: &AgentConnection) -> Result<Finished, Stop> {
        let saving = Saving::new(agent, options.save_limit);
        Ok(self.trainer.run_saving(self.exchange, self.store, agent.outbox(), Some(&saving))?)
    }
}
