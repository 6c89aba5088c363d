//! The service of the agents: one stream a node.

use std::path::PathBuf;
use std::time::Duration;

use lockstep_rpc::agent_message::Body;
use lockstep_rpc::agents_server;
use lockstep_rpc::{AgentMessage, CoordinatorMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::STREAM_QUEUE;
use super::conversation::Conversation;
use super::convert::{Joining, invalid};
use crate::node::Handle;

/// How long a stream may be silent before its first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// What every conversation is told at its start, or passes on.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The coordinator's name for people.
    pub(super) cluster: String,
    /// Silence after which a node is given up.
    pub(super) lease: Duration,
    /// The blob store's directory.
    pub(super) store: PathBuf,
}

/// The service.
#[derive(Clone, Debug)]
pub struct Agents {
    handle: Handle,
    terms: Terms,
    stop: CancellationToken,
}

impl Agents {
    /// The service, until `stop`.
    pub fn new(handle: Handle, cluster: String, lease: Duration, store: PathBuf, stop: CancellationToken) -> Self {
        Self { handle, terms: Terms { cluster, lease, store }, stop }
    }
}

#[tonic::async_trait]
impl agents_server::Agents for Agents {
    type AttachStream = ReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let peer = request.remote_addr();
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the stream began with silence: expected `hello`"))??;
        let Some(Body::Hello(hello)) = first.and_then(|message| message.body) else {
            return Err(invalid("body", "the first message must be `hello`"));
        };
        let version = hello.version.clone();
        let joining = Joining::try_from(hello)?;
        info!(
            node = %joining.node,
            host = joining.host,
            devices = joining.devices.len(),
            version,
            peer = peer.map(|address| address.to_string()),
            "node attached"
        );
        let Joining { node, incarnation, host, devices } = joining;
        let session = self.handle.attach(node, incarnation, host, devices).await?;
        let (outgoing, stream) = mpsc::channel(STREAM_QUEUE);
        let conversation = Conversation::new(session, incoming, outgoing, self.terms.clone());
        let stop = self.stop.clone();
        tokio::spawn(async move { conversation.run(&stop).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
