//! The connection to a coordinator.

use std::time::Duration;

use lockstep_common::chain;
use lockstep_coordinator::api::MAX_MESSAGE_BYTES;
use lockstep_net::Dialer;
use lockstep_rpc::control_client::ControlClient;
use lockstep_rpc::query_request::What;
use lockstep_rpc::{
    AnnotateRequest, CancelRequest, FenceRequest, QueryRequest, RemoveNodeRequest, ReplayRequest, ResumeRequest,
    RunReply, SubmitRequest, is_busy,
};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::terminal::{Exit, Failure, Output};

/// How long a write, a follow or a transfer is retried after the connection was lost. A coordinator restarts within seconds.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Pause between two retries after the connection was lost.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long a request to a busy coordinator is retried: longer than the coordinator waits for slow clients.
const RETRY_BUSY_FOR: Duration = Duration::from_mins(5);
/// Pause between two retries of a request to a busy coordinator.
const RETRY_BUSY_PAUSE: Duration = Duration::from_secs(1);

/// A connection to a coordinator. After a loss, the next request opens it again.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: String,
    control: ControlClient<Channel>,
}

impl Client {
    /// Connects to `address`, `HOST:PORT`. A coordinator that cannot be reached is an error without retries.
    pub(crate) async fn connect(address: &str) -> Result<Self, Failure> {
        let dialer = Dialer::to(address)
            .ok_or_else(|| Failure::new(Exit::Usage, format!("`{address}` is not an address: expected HOST:PORT")))?;
        let channel = dialer.connect().await.map_err(|error| {
            Failure::new(Exit::Unreachable, format!("cannot reach a coordinator at `{address}`: {}", chain(&error)))
                .hint("start one with `coord serve`, name another with `--addr` or LOCKSTEP_ADDR, or run a job with `--local N`")
        })?;
        let control = ControlClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { address: address.to_owned(), control })
    }

    /// The generated client, for streams of messages.
    pub(crate) fn control(&mut self) -> &mut ControlClient<Channel> {
        &mut self.control
    }

    /// As [`Self::control`], by value.
    pub(crate) fn into_control(self) -> ControlClient<Channel> {
        self.control
    }

    /// Submits a job, and returns the id of the new run.
    pub(crate) async fn submit(&self, request: SubmitRequest) -> Result<String, Failure> {
        self.write(async |mut control: ControlClient<Channel>| control.submit(request.clone()).await).await
    }

    /// Resumes a checkpoint, and returns the id of the new run.
    pub(crate) async fn resume(&self, request: ResumeRequest) -> Result<String, Failure> {
        self.write(async |mut control: ControlClient<Channel>| control.resume(request.clone()).await).await
    }

    /// Starts a replay, and returns the id of its run.
    pub(crate) async fn replay(&self, request: ReplayRequest) -> Result<String, Failure> {
        self.write(async |mut control: ControlClient<Channel>| control.start_replay(request.clone()).await).await
    }

    /// Cancels a run, and returns its whole id.
    pub(crate) async fn cancel(&self, request: CancelRequest) -> Result<String, Failure> {
        self.write(async |mut control: ControlClient<Channel>| control.cancel(request.clone()).await).await
    }

    /// Replaces the tags or the note of a run, and returns its whole id.
    pub(crate) async fn annotate(&self, request: AnnotateRequest) -> Result<String, Failure> {
        self.write(async |mut control: ControlClient<Channel>| control.annotate(request.clone()).await).await
    }

    /// Fences or unfences devices of a node.
    pub(crate) async fn fence(&self, request: FenceRequest) -> Result<(), Failure> {
        let call = async |mut control: ControlClient<Channel>| {
            let done = control.fence(request.clone()).await?;
            Ok(done.map(|_| RunReply::default()))
        };
        self.write(call).await.map(|_| ())
    }

    /// Removes a node that is gone or lost.
    pub(crate) async fn remove_node(&self, request: RemoveNodeRequest) -> Result<(), Failure> {
        let call = async |mut control: ControlClient<Channel>| {
            let done = control.remove_node(request.clone()).await?;
            Ok(done.map(|_| RunReply::default()))
        };
        self.write(call).await.map(|_| ())
    }

    /// Asks the coordinator, and returns its JSON document. It is not retried.
    pub(crate) async fn query(&self, what: What) -> Result<String, Failure> {
        let mut control = self.control.clone();
        let reply = control.query(QueryRequest { what: Some(what) }).await.map_err(|status| self.failure(status))?;
        Ok(reply.into_inner().json)
    }

    /// Sends a write, and retries it with the same request id while the coordinator is away or busy: it is applied at most once (I4).
    async fn write<F>(&self, call: F) -> Result<String, Failure>
    where
        F: AsyncFn(ControlClient<Channel>) -> Result<Response<RunReply>, Status>,
    {
        let mut patience = Patience::default();
        loop {
            match call(self.control.clone()).await {
                Ok(reply) => return Ok(reply.into_inner().run),
                Err(status) if lost(&status) && patience.more(&self.address, &status).await => {}
                Err(status) => return Err(self.failure(status)),
            }
        }
    }

    /// The failure of a request: a refusal, a busy coordinator, or no answer.
    pub(crate) fn failure(&self, status: Status) -> Failure {
        if is_busy(&status) {
            let words = format!("the coordinator at `{}` is busy: {}", self.address, status.message());
            return Failure::new(Exit::Unreachable, words);
        }
        if lost(&status) {
            let words = format!("the request to the coordinator at `{}` failed: {}", self.address, status.message());
            return Failure::new(Exit::Unreachable, words);
        }
        Failure::from(status)
    }

    /// The address of the coordinator, `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

/// Whether the connection was lost, or the coordinator could not answer: the request may be retried.
pub(crate) fn lost(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// Limits how long requests are retried while the coordinator is away or busy.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    lost_since: Option<Instant>,
    busy_since: Option<Instant>,
}

impl Patience {
    /// Waits, and returns whether to retry after `status`. The first call prints the reason.
    pub(crate) async fn more(&mut self, address: &str, status: &Status) -> bool {
        let (since, pause, most) = if is_busy(status) {
            (&mut self.busy_since, RETRY_BUSY_PAUSE, RETRY_BUSY_FOR)
        } else {
            (&mut self.lost_since, RETRY_PAUSE, RETRY_FOR)
        };
        let since = *since.get_or_insert_with(|| {
            Output::note(&format!("{}; retrying for {} s", trouble(address, status), most.as_secs()));
            Instant::now()
        });
        tokio::time::sleep(pause).await;
        since.elapsed() < most
    }

    /// Starts the limits again, after an answer.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Why a request is retried: the coordinator is busy, or the connection was lost.
fn trouble(address: &str, status: &Status) -> String {
    if !is_busy(status) {
        return format!("lost connection to the coordinator at {address}");
    }
    let why = status.message();
    format!("the coordinator at {address} is busy ({})", why.strip_suffix(": try again").unwrap_or(why))
}

#[cfg(test)]
mod tests {
    use lockstep_rpc::busy;

    use super::*;

    #[test]
    fn a_coordinator_that_answers_is_told_from_one_that_does_not() {
        let status = busy("128 uploads are in progress, which is the maximum: try again");
        assert!(lost(&status), "it is retried");
        assert_eq!(
            trouble("host:7070", &status),
            "the coordinator at host:7070 is busy (128 uploads are in progress, which is the maximum)"
        );
        let gone = Status::unavailable("tcp connect error");
        assert_eq!(trouble("host:7070", &gone), "lost connection to the coordinator at host:7070");
    }
}
