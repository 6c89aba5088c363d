//! A rank process from its first word to its last.
//!
//! ```text
//! hello ─> assign ─> data, model, checkpoint ─> ready ─> start ─> mesh ─> train ─> finished ─> drained ─> exit 0
//! ```

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lockstep_common::ending::EXIT_PEERS_GONE;
use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{DataFile, Manifest, Override};
use lockstep_common::preprocessing::OF_CHECKPOINT;
use lockstep_common::{RunId, chain, without_frames};
use lockstep_exchange::{Listener, Mesh, MeshConfig};
use lockstep_host::blobs::BlobStore;
use lockstep_host::data::{self, Located, Reading};
use lockstep_host::{progress, transient};
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{Assignment, Corrupt, Derived, Failed, Finished, ProcessHello, Ready, Replay};
use lockstep_tch_ext::c10d::Backend;
use lockstep_tch_ext::stacks;
use tch::Device;
use tracing::{error, info, warn};

use super::agent::Link;
use super::fault::{self, Fault};
use super::memory;
use crate::checkpoint::Saving;
use crate::evidence::{Divergence, numerics};
use crate::observe::parse_device;
use crate::program::{OtherData, Setup, Source};
use crate::reduce::{Exchange, ExchangeError, GroupExchange, MeshExchange};
use crate::step::{TrainError, Trainer};

/// How long the processes of a generation, which have all said that they are ready, may take to connect.
const CONNECT_DEADLINE: Duration = Duration::from_mins(1);

/// What the agent starts a process with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Which run.
    pub run: RunId,
    /// Which of its generations.
    pub generation: u64,
    /// Which of its processes.
    pub process: u32,
    /// Where the exchange listens.
    pub bind: IpAddr,
    /// Whether it may share memory with processes on the same machine.
    pub shared_memory: bool,
    /// How long the last checkpoint is tried again.
    pub save_limit: Duration,
    /// Silence after which a peer is given up. One that dies is noticed at once, and one that hangs by its agent: this is for a network
    /// that is cut, and longer than a peer may wait for a slow store.
    pub silence_limit: Duration,
}

/// Lives a rank process's life, training with `source`.
pub fn run(source: &dyn Source, options: &Options) -> ExitCode {
    let hello = ProcessHello {
        run: options.run.as_str().to_owned(),
        generation: options.generation,
        process: options.process,
        protocol: lockstep_rpc::PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    stacks::write_on_signal();
    let link = match Link::connect(&options.socket, hello) {
        Ok(link) => link,
        Err(error) => {
            error!("cannot connect to the agent at `{}`: {error}", options.socket.display());
            return ExitCode::FAILURE;
        }
    };
    match live(source, options, &link) {
        Ok(()) => {
            link.close();
            ExitCode::SUCCESS
        }
        Err(Stop::Peers(reason)) => {
            error!("{reason}");
            link.close();
            ExitCode::from(EXIT_PEERS_GONE as u8)
        }
        Err(Stop::Failed { reason, transient }) => {
            error!("{reason}");
            link.outbox().push(Body::Failed(Failed { reason, transient }));
            link.close();
            ExitCode::FAILURE
        }
        Err(Stop::Corrupt(reason, corrupt)) => {
            error!("{reason}");
            link.outbox().push(Body::Corrupt(corrupt));
            link.close();
            ExitCode::FAILURE
        }
    }
}

/// Why a process ends before its run does.
enum Stop {
    /// Other processes are gone: the run goes on in its next generation.
    Peers(String),
    /// It would fail again, and the run ends; or the reason may pass, and the run is tried again.
    Failed { reason: String, transient: bool },
    /// The processes differ: the coordinator judges, and the run goes on without who was wrong.
    Corrupt(String, Corrupt),
}

impl Stop {
    fn failed(error: &dyn std::error::Error) -> Self {
        let whole = chain(error);
        let mut reason = without_frames(&whole);
        if reason != whole {
            // Where it was thrown is for the log.
            error!("{whole}");
        }
        if let Some(memory) = memory::of(&reason) {
            reason.push_str(&memory);
        }
        Self::Failed { transient: transient::is_in(&whole), reason }
    }

    /// A reason that would come again.
    fn for_good(reason: String) -> Self {
        Self::Failed { reason, transient: false }
    }
}

impl From<TrainError> for Stop {
    fn from(error: TrainError) -> Self {
        use ExchangeError::{Cut, Group, Mesh, PeerGone, Silence, SomePeerGone};
        if let TrainError::Corrupt { step, agreed, divergence } = &error {
            let Divergence { fingerprints, tensors, trail } = divergence.clone();
            return Self::Corrupt(
                chain(&error),
                Corrupt { step: *step, agreed: *agreed, fingerprints, tensors, trail },
            );
        }
        let peers = matches!(
            &error,
            TrainError::Exchange {
                source: PeerGone { .. } | SomePeerGone { .. } | Silence { .. } | Cut | Mesh(_) | Group(_),
                ..
            }
        );
        if peers { Self::Peers(chain(&error)) } else { Self::failed(&error) }
    }
}

fn live(source: &dyn Source, options: &Options, link: &Link) -> Result<(), Stop> {
    let order = Order::parse(link.assigned())?;
    let device = order.device;
    // Hashes this program: meanwhile the model is built.
    let environment = std::thread::spawn(move || numerics::environment(device));
    numerics::apply(&order.job).map_err(|error| Stop::failed(&error))?;
    let store = BlobStore::existing(&order.store).map_err(|error| Stop::failed(&error))?;
    let other_revision = order.job.data.revision().is_some();
    let files = data::listed(&order.data, &store).map_err(|error| Stop::failed(&error))?;
    let located = data::locate(&order.base_dir, &files, &store, other_revision, Reading::of(&order.job));
    let Located { files: found, watch } = located.map_err(|error| Stop::failed(&error))?;
    let restore = order.restore.as_ref().map(|manifest| (manifest, &store));
    let files = files.into_iter().map(|file| file.path).collect();
    // Other data than the checkpoint's is assigned only if a person accepted it.
    let other_data = order.restore.as_ref().and_then(|manifest| OtherData::between(&manifest.data, &order.data));
    let setup = Setup::new(order.job.clone(), found, files, order.device).on(other_data);
    let trainer = Trainer::load(source, setup, restore).map_err(|error| Stop::failed(&error))?;
    let mut environment = environment.join().unwrap_or_default();
    environment.extend(fault::named().map(|fault| ("fault".to_owned(), fault)));
    environment.extend(trainer.note().map(|note| ("preprocessing".to_owned(), format!("{OF_CHECKPOINT}{note}"))));
    if let Some(Override { key, was, now }) = trainer.derived().cloned() {
        let overrides = vec![lockstep_rpc::Override { key, was, now }];
        link.outbox().push(Body::Derived(Derived { overrides }));
    }
    let listener = Listener::bind(options.bind).map_err(|error| Stop::failed(&error))?;
    link.outbox().push(Body::Ready(Ready {
        address: listener.local_addr().to_string(),
        numerics: numerics::fingerprint(&order.job, trainer.layout(), order.device).into_iter().collect(),
        environment: environment.into_iter().collect(),
    }));

    let start = link.started();
    let exchange = join(options, order.device, listener, &start)?;
    progress::begin(progress::Phase::Training);
    let fault = Fault::from_environment(&order.job.name, options.generation, options.process);
    let trainer = match fault.map_err(Stop::for_good)? {
        Some(fault) => trainer.with_hook(fault),
        None => trainer,
    };
    let trainer = trainer.watching(watch).judge_at(order.judge_at.iter().copied());
    let (trainer, store) = match &order.replay {
        // What it makes is compared, and not kept.
        Some(replay) => (trainer.replay(replay.until, replay.fingerprints_every), None),
        None => (trainer, Some(store)),
    };
    let saving = Saving::new(link, options.save_limit);
    let finished = trainer.run_saving(exchange, store, link.outbox(), Some(&saving))?;
    progress::begin(progress::Phase::Ending);
    info!(step = finished.step, state = %finished.state.short(), "finished");
    let state = finished.state.as_bytes().to_vec();
    link.outbox().push(Body::Finished(Finished { step: finished.step, state }));
    link.drained();
    Ok(())
}

/// An assignment, checked.
struct Order {
    job: JobSpec,
    base_dir: PathBuf,
    device: Device,
    data: Vec<DataFile>,
    store: PathBuf,
    restore: Option<Manifest>,
    replay: Option<Replay>,
    judge_at: Vec<u64>,
}

impl Order {
    fn parse(assignment: Assignment) -> Result<Self, Stop> {
        let job = JobSpec::from_canonical(&assignment.job).map_err(|error| Stop::failed(&error))?;
        let device = parse_device(&assignment.device)
            .ok_or_else(|| Stop::for_good(format!("`{}` is not a device", assignment.device)))?;
        let data = assignment.data.into_iter().map(DataFile::try_from).collect::<Result<_, _>>();
        let data = data.map_err(|_| Stop::for_good("the assignment has a data digest that is none".to_owned()))?;
        let restore = match assignment.restore.as_slice() {
            [] => None,
            bytes => Some(Manifest::decode(bytes).map_err(|error| Stop::failed(&error))?),
        };
        let (base_dir, store) = (assignment.base_dir.into(), assignment.store.into());
        let Assignment { replay, judge_at, .. } = assignment;
        Ok(Self { job, base_dir, device, data, store, restore, replay, judge_at })
    }
}

/// Joins the other processes; nobody to join if there is one only.
fn join(
    options: &Options,
    device: Device,
    listener: Listener,
    start: &Assignment,
) -> Result<Option<Box<dyn Exchange>>, Stop> {
    let addresses = start
        .peers
        .iter()
        .map(|peer| peer.parse().map_err(|_| Stop::for_good(format!("`{peer}` is not a peer's address"))))
        .collect::<Result<Vec<SocketAddr>, Stop>>()?;
    if addresses.len() <= 1 {
        return Ok(None);
    }
    let secret = start.secret.as_slice().try_into();
    let config = MeshConfig {
        process: options.process as usize,
        addresses,
        secret: secret.map_err(|_| Stop::for_good("the assignment has no secret of 32 bytes".to_owned()))?,
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
            let group = GroupExchange::join(&Backend::Nccl { device }, mesh, options.bind, options.silence_limit);
            Box::new(group.map_err(|error| lost(&error))?)
        }
        _ => Box::new(MeshExchange::new(mesh)),
    }))
}

/// Says so if the exchange listens where other machines can reach it: it proves a secret, and encrypts nothing.
pub fn warn_if_reachable(bind: IpAddr) {
    if !bind.is_loopback() {
        warn!("gradients travel unencrypted between processes: `{bind}` should be on a network of your own");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_reason_that_may_pass_is_told_from_one_that_would_come_again() {
        let transient = |error: Error| match Stop::failed(&error) {
            Stop::Failed { transient, .. } => transient,
            Stop::Peers(_) | Stop::Corrupt(..) => panic!("it failed"),
        };
        assert!(
            transient(Errno::STALE.into())
                && transient(Error::other("CUDA error: uncorrectable ECC error encountered"))
        );
        assert!(!transient(Errno::NOENT.into()) && !transient(Error::new(ErrorKind::InvalidData, "the loss is NaN")));
    }
}
