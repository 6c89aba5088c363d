//! A running coordinator: store, event loop and gRPC port, started and ended together.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::map_response;
use lockstep_common::chain;
use lockstep_host::access::{self, ShareError};
use lockstep_host::durable;
use lockstep_rpc::agents_server::AgentsServer;
use lockstep_rpc::control_server::ControlServer;
use lockstep_store::shared;
use lockstep_store::{BlobError, BlobStore};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

use crate::api::blobs::Blobs;
use crate::api::reserve::Reserve;
use crate::api::status::shorten;
use crate::api::{Agents, Control, MAX_MESSAGE_BYTES, Terms};
use crate::checkpoints::{self, Committer, Manifests};
use crate::identity::start_history::StartHistory;
use crate::identity::{Identity, IdentityError};
use crate::node::{CallError, Handle, Node, NodeError};
use crate::numbers::mismatch;
use crate::numbers::saves;
use crate::numbers::tracker::Tracker;
use crate::query::{Answers, Runs, documents};
use crate::settings::Settings;
use crate::store::{DataDir, Store, StoreError};
use crate::web::Page;
use lockstep_net::listen::{self, Port, Ports, Speaks};

/// Time that open streams get to take the last word of a coordinator that ends.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A coordinator that cannot start, or that had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event loop.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The port.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The blob store cannot be its group's.
    #[error("key `store.group`")]
    Share(#[from] ShareError),
    /// The blob store is another one than before, or its directory cannot be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The file `starts`, by which nodes tell an older copy of the data directory.
    #[error("cannot note this start in `{}`", path.display())]
    Starts {
        /// The data directory that it lies in.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database of numbers.
    #[error(transparent)]
    Tracking(#[from] lockstep_tracking::TrackingError),
    /// The gRPC server.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
    /// A part of the coordinator panicked; it has said why.
    #[error("a part of the coordinator panicked")]
    Panicked,
}

/// A coordinator that answers.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: Handle,
    stop: CancellationToken,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    page: Option<Page>,
    /// Last but the loop: its news end with the store.
    tracker: Tracker,
    hooks: Option<JoinHandle<()>>,
    /// The loop outlives the server: what the server has accepted is answered.
    node_stop: CancellationToken,
    node: JoinHandle<Result<(), NodeError>>,
    /// Ends with the loop.
    committer: JoinHandle<Result<(), CallError>>,
}

/// Starts a coordinator, and returns once it answers.
pub async fn start(settings: &Settings) -> Result<Running, ServeError> {
    let limits = ports(settings.limits.ports, raise_file_limit());
    // The port first: it is what most often is in use, and nothing was touched yet.
    let listen = |source| ServeError::Listen { address: settings.listen, source };
    let port = Port::open(settings.listen, Speaks::Http2, limits.grpc).await.map_err(listen)?;
    let address = port.address().map_err(listen)?;
    let web = match settings.web_listen {
        Some(address) => {
            let listen = |source| ServeError::Listen { address, source };
            Some(Port::open(address, Speaks::Http1, limits.page).await.map_err(listen)?)
        }
        None => None,
    };
    if !address.ip().is_loopback() {
        warn!(%address, "other machines can reach this port, and there is no TLS: whoever does can run jobs on every worker");
    }
    let data = DataDir::take(&settings.data_dir)?;
    // Before anything is made in the store's directory.
    let identity =
        Identity::take(&settings.store, &settings.data_dir, || Ok::<_, ServeError>(data.known_blobs()?), draw_id)?;
    tidy(settings)?;
    let blob_store = Arc::new(BlobStore::open(&settings.store)?);
    let mut put = |bytes: &[u8]| blob_store.put(bytes).and_then(|piece| blob_store.sync().map(|()| piece));
    let (store, recovered) = Store::open(data, &mut put)?;
    if let Some(detail) = checkpoints::contradiction(&recovered.state, &blob_store) {
        return Err(StoreError::Damaged { path: settings.data_dir.join("state.redb"), detail }.into());
    }
    let starts = draw_id().and_then(|id| StartHistory::begin(&settings.data_dir, id));
    let starts = starts.map_err(|source| ServeError::Starts { path: settings.data_dir.clone(), source })?;
    ignore_in_git(&settings.data_dir);

    let stop = CancellationToken::new();
    let (reader, archive) = (store.reader(), store.archive());
    // It ends with the tracker and the loop, which use it.
    let (notifier, hooks) = settings.hooks.clone().start();
    let quota = settings.limits.media;
    let tracker = Tracker::start(&settings.data_dir, quota, reader.clone(), store.news(), notifier.clone())?;
    let (node, handle) = Node::new(store, recovered, settings.policy)?;
    let node_stop = CancellationToken::new();
    let node = tokio::spawn(node.run(node_stop.clone()));
    if handle.serving().await.is_err() {
        // Only its own end keeps it from serving: a single voter leads at once.
        return Err(node.await.map_err(|_| ServeError::Panicked)?.err().map_or(ServeError::Panicked, Into::into));
    }

    if notifier.has_listeners() {
        // They end with the loop.
        tokio::spawn(mismatch::notify(handle.clone(), notifier.clone()));
        tokio::spawn(saves::notify(handle.clone(), notifier));
    }
    // It ends with the loop, too.
    let committer = Committer::new(handle.clone(), Arc::clone(&blob_store), identity.clone(), settings.store_patience);
    let committer = tokio::spawn(committer.run());

    let cluster = format!("{}@{address}", env!("CARGO_PKG_NAME"));
    let runs = Runs::new(handle.clone(), archive);
    let manifests = Manifests::new(handle.clone(), blob_store, identity.clone());
    let answers = Answers::new(handle.clone(), runs, manifests, &tracker, &about(settings, address));
    let listeners = settings.limits.page_listeners;
    let reserve = Reserve::new(&settings.store, &settings.data_dir, settings.limits.disk_reserve);
    let blobs = Blobs::open(&settings.store, identity.clone(), reserve)?;
    let page = web.map(|port| Page::serve(port, answers.clone(), &tracker, blobs.of_page(), listeners, stop.clone()));
    let control = Control::new(answers, reader, blobs, stop.clone());
    let terms = Terms { cluster, lease: settings.policy.lease, store: settings.store.clone(), identity, starts };
    let agents = Agents::new(handle.clone(), terms, stop.clone());
    let server = tokio::spawn(lockstep_net::serve(port, routes(control, agents), stop.clone()));
    Ok(Running { address, handle, stop, server, page, tracker, hooks, node_stop, node, committer })
}

impl Running {
    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its page is.
    pub fn page(&self) -> Option<SocketAddr> {
        self.page.as_ref().map(Page::address)
    }

    /// Rows of runs that were made for events of the page so far.
    #[cfg(test)]
    pub(crate) fn rows_made(&self) -> u64 {
        self.page.as_ref().map_or(0, Page::rows_made)
    }

    /// Its event loop.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Serves until `stopped` is there, or until it cannot go on; then ends everything in order.
    pub async fn until(mut self, stopped: impl Future<Output = ()>) -> Result<(), ServeError> {
        let failed = tokio::select! {
            biased;
            // Only an error ends the loop before the server.
            ended = &mut self.node => Some(ended),
            // Without it no checkpoint counts any more: a new start goes on.
            Err(panicked) = &mut self.committer => Some(Err(panicked)),
            () = stopped => None,
        };
        self.stop.cancel();
        let served = self.end_server().await;
        if let Some(page) = self.page.take() {
            page.end().await;
        }
        self.node_stop.cancel();
        let ended = match failed {
            Some(ended) => ended,
            None => self.node.await,
        };
        drop(self.tracker);
        if let Some(hooks) = self.hooks.take()
            && timeout(STOP_GRACE, hooks).await.is_err()
        {
            warn!("whoever is to be told of the last alarms is too slow: leaving them");
        }
        ended.map_err(|_| ServeError::Panicked)??;
        served
    }

    /// Waits until the server has ended its streams, which it was told to.
    async fn end_server(&mut self) -> Result<(), ServeError> {
        if let Ok(served) = timeout(STOP_GRACE, &mut self.server).await {
            return served.map_err(|_| ServeError::Panicked)?.map_err(ServeError::Server);
        }
        warn!("some clients did not take their last word: leaving them");
        self.server.abort();
        Ok(())
    }
}

/// The gRPC services.
fn routes(control: Control, agents: Agents) -> Routes {
    let control = ControlServer::new(control)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let agents = AgentsServer::new(agents)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let router = Routes::new(control).add_service(agents).into_axum_router();
    router.layer(map_response(shorten)).into()
}

/// The document that answers `QueryRequest.coordinator`.
fn about(settings: &Settings, address: SocketAddr) -> String {
    documents::encode(&serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "address": address.to_string(),
        "process": std::process::id(),
        "data_dir": settings.data_dir,
        "store": settings.store,
        "lease_ms": settings.policy.lease.as_millis() as u64,
        "retries": settings.policy.retries,
    }))
}

/// A random id, for a store or a start.
fn draw_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Each client, node and blob on its way is an open file: as many as the system lets this process have. How many those are.
fn raise_file_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // It goes on with those that it has.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// What is `wanted` of the ports, as far as `files` allow.
fn ports(wanted: Ports, files: usize) -> Ports {
    let fitting = listen::fit(wanted, files);
    if fitting != wanted {
        warn!(
            files,
            connections = fitting.grpc.connections,
            page_connections = fitting.page.connections,
            "the system lets this process have few open files, so that there are fewer connections than configured: raise \
             `ulimit -n`"
        );
    }
    fitting
}

/// How long a file that nobody writes to may lie unfinished in the store.
const UNFINISHED: Duration = Duration::from_hours(24);

/// Gives the store to whom it belongs, and deletes what is left of checks of nodes and, in the background, of writers that are gone.
///
/// # Errors
/// A store that cannot be shared; one whose directory for unfinished files leads elsewhere.
fn tidy(settings: &Settings) -> Result<(), ServeError> {
    if settings.store_group {
        access::share(&settings.store)?;
    }
    let blobs = match BlobStore::existing(&settings.store) {
        Err(BlobError::NoStore { .. }) => return Ok(()),
        blobs => blobs?,
    };
    shared::sweep(&settings.store);
    let store = settings.store.clone();
    tokio::task::spawn_blocking(move || match blobs.sweep(UNFINISHED) {
        Ok(0) => {}
        Ok(files) => info!(store = %store.display(), files, "deleted unfinished files that nobody writes to"),
        Err(error) => warn!("cannot delete unfinished files: {}", chain(&error)),
    });
    Ok(())
}

/// State that lies in a work tree must not make it dirty. If this cannot be written, git shows the directory: no harm.
fn ignore_in_git(dir: &Path) {
    let _ = durable::write_atomic(&dir.join(".gitignore"), b"*\n");
}
