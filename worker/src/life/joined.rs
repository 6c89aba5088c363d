//! Joined: the process is connected to the other processes of its generation.

use std::net::SocketAddr;
use std::time::Duration;

use lockstep_common::chain;
use lockstep_exchange::{Listener, Mesh, MeshConfig};
use lockstep_host::progress;
use lockstep_store::BlobStore;
use lockstep_tch_ext::c10d::Backend;
use tch::Device;

use super::Options;
use super::agent::AgentConnection;
use super::ended::Stop;
use super::loaded::Loaded;
use crate::reduce::{Exchange, GroupExchange, MeshExchange};
use crate::step::Trainer;

/// How long the processes of a generation may take to connect after all have reported that they are ready.
const CONNECT_DEADLINE: Duration = Duration::from_mins(1);

/// A process that is connected and can begin to train.
pub(super) struct Joined {
    pub(super) trainer: Trainer,
    pub(super) store: Option<BlobStore>,
    /// `None` for a generation of one process.
    pub(super) exchange: Option<Box<dyn Exchange>>,
}

impl Joined {
    /// Waits until all processes of the generation are ready, and connects to them.
    pub(super) fn join(loaded: Loaded, options: &Options, agent: &AgentConnection) -> Result<Self, Stop> {
        let Loaded { trainer, store, listener, secret } = loaded;
        let exchange = join(options, trainer.device(), listener, secret, &agent.peers())?;
        Ok(Self { trainer, store, exchange })
    }
}

/// Connects to the other processes; `None` if this is the only one.
fn join(
    options: &Options,
    device: Device,
    listener: Listener,
    secret: [u8; 32],
    peers: &[String],
) -> Result<Option<Box<dyn Exchange>>, Stop> {
    let addresses = peers
        .iter()
        .map(|peer| {
            peer.parse()
                .map_err(|_| Stop::for_good(format!("invalid address `{peer}` of another process: expected IP:PORT")))
        })
        .collect::<Result<Vec<SocketAddr>, Stop>>()?;
    if addresses.len() <= 1 {
        return Ok(None);
    }
    let config = MeshConfig {
        process: options.process as usize,
        addresses,
        secret,
        run: options.run.as_str().to_owned(),
        generation: options.generation,
        connect_deadline: CONNECT_DEADLINE,
        silence_limit: options.silence_limit,
        shared_memory: options.shared_memory,
    };
    let lost =
        |error: &dyn std::error::Error| Stop::Peers(format!("cannot join the other processes: {}", chain(error)));
    let _waits = progress::waits();
    let mesh = Mesh::join(listener, &config).map_err(|error| lost(&error))?;
    Ok(Some(match device {
        Device::Cuda(device) => {
            let group = GroupExchange::join(&Backend::nccl(device), mesh, options.bind, options.silence_limit);
            Box::new(group.map_err(|error| lost(&error))?)
        }
        _ => Box::new(MeshExchange::new(mesh)),
    }))
}
