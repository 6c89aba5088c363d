//! The gRPC service for agents: one stream per node. A node joins once it has shown that it shares the store.

use std::path::Path;
use std::time::Duration;

use lockstep_common::chain;
use lockstep_core::command::Messenger;
use lockstep_rpc::agent_message::Body;
use lockstep_rpc::{AgentMessage, CoordinatorMessage, Hello, PROTOCOL, StoreSeen, Welcome, misfit};
use lockstep_rpc::{agents_server, coordinator_message};
use lockstep_store::shared::Offer;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::STREAM_QUEUE;
use super::conversation::Conversation;
use super::convert::{Joining, invalid};
use super::terms::Terms;
use crate::node::{CallError, Handle, Session};

/// Time limit for the first message of a stream, and then for the node's `store` message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends messages to a node.
type Outgoing = mpsc::Sender<Result<CoordinatorMessage, Status>>;

/// The gRPC service for agents.
#[derive(Clone, Debug)]
pub struct Agents {
    handle: Handle,
    terms: Terms,
    stop: CancellationToken,
}

impl Agents {
    /// The service. Its streams end when `stop` is cancelled.
    pub fn new(handle: Handle, terms: Terms, stop: CancellationToken) -> Self {
        Self { handle, terms, stop }
    }

    /// Rejects a node with acknowledged reports that this state lacks.
    ///
    /// If the state has no runs, a node without acknowledged reports may join. A node with acknowledged reports may not, because the
    /// coordinator's data directory may not be mounted.
    async fn remembers(&self, hello: &Hello) -> Result<(), Status> {
        let applied = self.handle.applied();
        if self.terms.starts.know(&hello.start, hello.acknowledged, applied)
            || hello.acknowledged == 0 && self.handle.read_first(|state| state.listed(u64::MAX, 1).is_empty()).await?
        {
            return Ok(());
        }
        let Hello { node, acknowledged, .. } = hello;
        Err(Status::failed_precondition(format!(
            "this coordinator has forgotten reports of node `{node}`: it was started on an older copy of its data directory, or \
             on another one (the node's reports were acknowledged up to log index {acknowledged}, this state is at {applied}); \
             start it on the newest copy; or stop the worker on `{node}`, delete `spool` in its data directory and start it again: \
             those reports are lost, and its runs resume from the last checkpoints that this coordinator knows"
        )))
    }
}

#[tonic::async_trait]
impl agents_server::Agents for Agents {
    type AttachStream = ReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let peer = request.remote_addr();
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await.map_err(|_| silent("hello"))??;
        let Some(Body::Hello(hello)) = first.and_then(|message| message.body) else {
            return Err(invalid("body", "the first message must be `hello`"));
        };
        let version = hello.version.clone();
        if let Some(reason) = misfit(&format!("node `{}`", hello.node), &version, hello.protocol) {
            return Err(Status::failed_precondition(reason));
        }
        if let Err(status) = self.remembers(&hello).await {
            warn!(node = hello.node, reason = status.message(), "rejected a node");
            return Err(status);
        }
        let joining = Joining::try_from(hello)?;
        info!(
            node = %joining.node,
            host = joining.host,
            devices = joining.devices.len(),
            version,
            peer = peer.map(|address| address.to_string()),
            "node asks to join"
        );
        let (outgoing, stream) = mpsc::channel(STREAM_QUEUE);
        let service = self.clone();
        tokio::spawn(async move { service.serve(joining, incoming, outgoing).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Agents {
    /// Joins a node if it shares the store, and serves its stream.
    async fn serve(self, joining: Joining, mut incoming: Streaming<AgentMessage>, outgoing: Outgoing) {
        let node = joining.node.clone();
        let taken = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(CallError::Stopping.into()),
            taken = self.take(joining, &mut incoming, &outgoing) => taken,
        };
        match taken {
            Ok(session) => {
                info!(%node, "node attached");
                Conversation::new(session, incoming, outgoing, self.terms.clone()).run(&self.stop).await;
            }
            Err(status) => {
                warn!(%node, reason = status.message(), "rejected a node");
                // An error means that the node is gone.
                let _ = outgoing.send(Err(status)).await;
            }
        }
    }

    async fn take(
        &self,
        joining: Joining,
        incoming: &mut Streaming<AgentMessage>,
        outgoing: &Outgoing,
    ) -> Result<Session, Status> {
        let (check, text) = (random()?, random()?);
        let identity = self.terms.identity.clone();
        let ours = spawn_blocking(move || identity.check()).await.map_err(panicked)?;
        ours.map_err(|error| Status::unavailable(chain(&error)))?;
        let (store, name, wrote) = (self.terms.store.clone(), check.clone(), text.clone());
        let offer = spawn_blocking(move || Offer::write(&store, &name, &wrote)).await.map_err(panicked)?;
        let offer = offer.map_err(|error| {
            let store = self.terms.store.display();
            Status::unavailable(format!("the coordinator cannot write to its own store `{store}`: {error}"))
        })?;
        let welcome = Welcome {
            cluster: self.terms.cluster.clone(),
            lease_ms: self.terms.lease.as_millis() as u64,
            store: self.terms.store.display().to_string(),
            check,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            start: self.terms.starts.current().to_owned(),
        };
        let welcome = CoordinatorMessage { body: Some(coordinator_message::Body::Welcome(welcome)) };
        outgoing.send(Ok(welcome)).await.map_err(|_| Status::cancelled("the node closed its stream"))?;
        let seen = tokio::time::timeout(HELLO_TIMEOUT, seen(incoming)).await;
        let seen = seen.map_err(|_| silent("store"))??;
        let path = seen.path.clone();
        let checked = spawn_blocking(move || {
            let checked = check_both(&offer, &text, &seen);
            drop(offer);
            checked
        });
        checked.await.map_err(panicked)?.map_err(|why| unshared(&joining, &self.terms.store, &path, &why))?;
        self.wait_for_name(&joining, outgoing).await?;
        let Joining { node, incarnation, agent, host, devices } = joining;
        Ok(self.handle.attach(Messenger { node, incarnation }, agent, host, devices).await?)
    }
}

impl Agents {
    /// Waits while another agent has the node's name, for at most 1.25 leases: if the other agent is dead, its lease expires meanwhile. If
    /// it is alive, `attach` rejects this node.
    async fn wait_for_name(&self, joining: &Joining, outgoing: &Outgoing) -> Result<(), Status> {
        let patience = self.terms.lease + self.terms.lease / 4;
        let wait = async {
            let (mut changes, mut told) = (self.handle.changes(), false);
            loop {
                let Joining { node, incarnation, agent, host, .. } = joining;
                let asks = (node.clone(), incarnation.clone(), agent.clone(), host.clone());
                let taken =
                    self.handle.read_first(move |state| state.name_taken(&asks.0, &asks.1, &asks.2, &asks.3)).await?;
                let Some(refusal) = taken else { return Ok(()) };
                if !std::mem::replace(&mut told, true) {
                    info!(%node, %refusal, "an agent waits, because another agent has its node name");
                }
                changes.next().await?;
            }
        };
        tokio::select! {
            biased;
            () = outgoing.closed() => Err(Status::cancelled("the node closed its stream")),
            waited = tokio::time::timeout(patience, wait) => waited.unwrap_or(Ok(())).map_err(|error: CallError| error.into()),
        }
    }
}

/// Receives the node's `store` message. Heartbeats may precede it.
async fn seen(incoming: &mut Streaming<AgentMessage>) -> Result<StoreSeen, Status> {
    loop {
        match incoming.message().await?.and_then(|message| message.body) {
            Some(Body::Store(seen)) => return Ok(seen),
            Some(Body::Heartbeat(_)) => {}
            Some(_) => return Err(invalid("body", "the message after `welcome` must be `store`")),
            None => return Err(Status::cancelled("the node closed its stream")),
        }
    }
}

/// Checks that each side has read the text that the other wrote. The error is a clause for [`unshared`].
fn check_both(offer: &Offer, text: &str, seen: &StoreSeen) -> Result<(), String> {
    if !seen.failed.is_empty() {
        return Err(format!("the node {}", seen.failed));
    }
    if !offer.was_read(text, &seen.found) {
        return Err("the node read another text than the coordinator wrote".to_owned());
    }
    offer.check(&seen.wrote).map_err(|why| format!("the coordinator {why}"))
}

/// The rejection of a node that does not share the store, with both paths.
fn unshared(joining: &Joining, store: &Path, path: &str, why: &str) -> Status {
    let Joining { node, host, .. } = joining;
    let own = store.canonicalize().unwrap_or_else(|_| store.to_owned());
    Status::failed_precondition(format!(
        "node `{node}` does not share the store: it is `{}` on the coordinator's machine, and the node looked at `{path}` on \
         `{host}`: {why}; mount the same directory on both machines, or set `store.path` of the coordinator to a shared one",
        own.display()
    ))
}

fn random() -> Result<String, Status> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| CallError::Entropy)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// The rejection of a node that does not send the `expected` message in time.
fn silent(expected: &str) -> Status {
    Status::deadline_exceeded(format!("no `{expected}` message within {} s", HELLO_TIMEOUT.as_secs()))
}

fn panicked(_: tokio::task::JoinError) -> Status {
    Status::internal("the check of the store panicked; see the coordinator's log")
}
