//! A running coordinator: starts and stops the database, the event loop, the gRPC server and the page together.

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

/// Time limit at shutdown for open streams to receive their last message, and for alarms to be delivered.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The coordinator cannot start, or stopped because of an error.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory or its database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event loop cannot recover its state, or failed to write.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The gRPC port or the page's port cannot be opened.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The configured address; port 0 takes a free port.
        address: SocketAddr,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// The blob store cannot be opened.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The blob store cannot be shared with its group.
    #[error("key `store.group`")]
    Share(#[from] ShareError),
    /// The blob store is not the one used before, or its directory cannot be created.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The id of this start cannot be appended to the file `starts`, by which an older copy of the data directory is detected.
    #[error("cannot write the id of this start to `{}`", path.join("starts").display())]
    Starts {
        /// The data directory that contains `starts`.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// `tracking.redb` cannot be opened.
    #[error(transparent)]
    Tracking(#[from] lockstep_tracking::TrackingError),
    /// The gRPC server stopped with an error.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
    /// A task panicked. The panic message is on standard error.
    #[error("a task of the coordinator panicked; see the panic message on standard error")]
    Panicked,
}

/// A coordinator that accepts requests.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: Handle,
    stop: CancellationToken,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    page: Option<Page>,
    /// Stopped after the event loop, which owns the database that the tracker reads.
    tracker: Tracker,
    hooks: Option<JoinHandle<()>>,
    /// Stops the event loop after the server, so that accepted requests get an answer.
    node_stop: CancellationToken,
    node: JoinHandle<Result<(), NodeError>>,
    /// Ends with the event loop.
    committer: JoinHandle<Result<(), CallError>>,
}

/// Starts a coordinator, and returns once it accepts requests.
pub async fn start(settings: &Settings) -> Result<Running, ServeError> {
    let limits = ports(settings.limits.ports, raise_file_limit());
    // The ports first: a port in use is the most common error, and until here no file has been changed.
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
        warn!(%address, "other machines can reach this port, and there is no TLS: whoever reaches it can run jobs on every worker");
    }
    let data = DataDir::take(&settings.data_dir)?;
    // Before anything is created in the store's directory.
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
    // `hooks` ends once the tracker and the event loop have dropped their notifiers.
    let (notifier, hooks) = settings.hooks.clone().start();
    let quota = settings.limits.media;
    let tracker = Tracker::start(&settings.data_dir, quota, reader.clone(), store.news(), notifier.clone())?;
    let (node, handle) = Node::new(store, recovered, settings.policy)?;
    let node_stop = CancellationToken::new();
    let node = tokio::spawn(node.run(node_stop.clone()));
    if handle.serving().await.is_err() {
        // A single voter becomes leader at once, so only an error of the event loop can keep it from serving.
        return Err(node.await.map_err(|_| ServeError::Panicked)?.err().map_or(ServeError::Panicked, Into::into));
    }

    if notifier.has_listeners() {
        // Both tasks end with the event loop.
        tokio::spawn(mismatch::notify(handle.clone(), notifier.clone()));
        tokio::spawn(saves::notify(handle.clone(), notifier));
    }
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
    /// Address of the gRPC port, with the port number that the system chose if the configured one is 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of the web page; `None` if there is no page.
    pub fn page(&self) -> Option<SocketAddr> {
        self.page.as_ref().map(Page::address)
    }

    /// Number of rows of runs that were encoded for the page's events so far.
    #[cfg(test)]
    pub(crate) fn rows_made(&self) -> u64 {
        self.page.as_ref().map_or(0, Page::rows_made)
    }

    /// The handle of the event loop.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Serves until `stopped` resolves, or until the event loop or the committer fails. Then stops all tasks in order: server, page, event
    /// loop, tracker, notifiers.
    pub async fn until(mut self, stopped: impl Future<Output = ()>) -> Result<(), ServeError> {
        let failed = tokio::select! {
            biased;
            // The event loop ends by itself only with an error.
            ended = &mut self.node => Some(ended),
            // Without the committer no checkpoint would be committed; a restart of the coordinator resumes.
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
            warn!("the alarm command or webhook did not finish within {} s: stopping without it", STOP_GRACE.as_secs());
        }
        ended.map_err(|_| ServeError::Panicked)??;
        served
    }

    /// Waits until the server has closed its streams; after [`STOP_GRACE`] aborts it.
    async fn end_server(&mut self) -> Result<(), ServeError> {
        if let Ok(served) = timeout(STOP_GRACE, &mut self.server).await {
            return served.map_err(|_| ServeError::Panicked)?.map_err(ServeError::Server);
        }
        warn!(
            "some clients did not receive their last message within {} s: closing their connections",
            STOP_GRACE.as_secs()
        );
        self.server.abort();
        Ok(())
    }
}

/// Both gRPC services, with their message limits.
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

/// A random id of 32 hexadecimal digits, for a store or a start.
fn draw_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Raises the limit on open files to the system's maximum, because each client, node and upload needs one. Returns the new limit.
fn raise_file_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If this fails, the old limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// The limits `wanted`, lowered to fit `files` open files.
fn ports(wanted: Ports, files: usize) -> Ports {
    let fitting = listen::fit(wanted, files);
    if fitting != wanted {
        warn!(
            files,
            connections = fitting.grpc.connections,
            page_connections = fitting.page.connections,
            "the limit on open files is too low for the configured number of connections, which is lowered to these values; raise \
             `ulimit -n`"
        );
    }
    fitting
}

/// Age after which an unfinished file in the store is deleted, unless a writer holds its lock.
const UNFINISHED: Duration = Duration::from_hours(24);

/// Sets the store's group permissions, deletes old test files of nodes and, in the background, unfinished files.
///
/// # Errors
/// `Share` if the store cannot be shared with its group; `Blobs` if its directory for unfinished files is a link.
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
        Ok(files) => info!(store = %store.display(), files, "deleted abandoned unfinished files"),
        Err(error) => warn!("cannot delete unfinished files in the store: {}", chain(&error)),
    });
    Ok(())
}

/// Keeps the data directory from making a git work tree dirty. An error is ignored: git then lists the directory as untracked.
fn ignore_in_git(dir: &Path) {
    let _ = durable::write_atomic(&dir.join(".gitignore"), b"*\n");
}
