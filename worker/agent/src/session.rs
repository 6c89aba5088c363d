//! The one stream to the coordinator: opened, kept open, and reopened for ever.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_host::access::private;
use lockstep_net::Dialer;
use lockstep_rpc::agent_message::Body;
use lockstep_rpc::agents_client::AgentsClient;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::frame::MAX_FRAME_BYTES;
use lockstep_rpc::{AgentMessage, CoordinatorMessage, Heartbeat, Hello, Welcome, misfit};
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{info, warn};

use crate::event::Event;
use crate::store;

/// Reports handed to the stream and not yet sent. They stay in the spool too, so this only has to keep the stream busy.
const OUTBOX_CAPACITY: usize = 32;
/// Heartbeats have a channel of their own, so that reports cannot delay them. A second queued one would say nothing new.
const HEARTBEAT_CAPACITY: usize = 1;
/// The pause after the first failure; each further failure doubles it, up to `LONGEST_PAUSE`. Both are short enough that
/// nodes rejoin a restarted coordinator within a lease.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Time limit for the coordinator's first message on a new stream.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Time limit, in addition to two leases, for the coordinator's decision whether this node shares its store.
const VERDICT_DEADLINE: Duration = Duration::from_secs(30);
/// Size limit of a message: one message of a process, and the fields that name the process.
const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + 65_536;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot reach the coordinator at {address}: {detail}")]
    Unreachable { address: String, detail: String },
    #[error("the coordinator at {address} did not answer within {limit:?}")]
    Silent { address: String, limit: Duration },
    #[error("cannot join the coordinator at {address}: {detail}")]
    NotWelcome { address: String, detail: String },
    #[error("the coordinator at {address} refused this node: {detail}")]
    Refused { address: String, detail: String },
    #[error("lost connection to the coordinator at {address}: {detail}")]
    Lost { address: String, detail: String },
}

/// Everything that stays the same from one stream to the next.
pub(crate) struct Session {
    dialer: Dialer,
    hello: Hello,
    known: Mutex<Known>,
    events: mpsc::Sender<Event>,
}

/// The newest start and acknowledgement of the coordinator that this agent knows; each `Hello` has them. A coordinator that knows less
/// was started on an older copy of its data directory, and refuses the agent.
#[derive(Debug, Default)]
struct Known {
    start: String,
    acknowledged: u64,
    /// Stores both for the next agent on the data directory, which may find reports of this one.
    file: Option<File>,
}

impl Known {
    /// Writes both to the file, without a sync, as the spool does. A failed write is ignored: this agent has the values in memory.
    fn keep(&self) {
        if let Some(file) = &self.file {
            file.write_all_at(format!("{} {:020}\n", self.start, self.acknowledged).as_bytes(), 0).ok();
        }
    }
}

impl Session {
    /// A session with the coordinator at `address`; `None` if that is not `host:port`.
    pub(crate) fn new(address: &str, hello: Hello, events: mpsc::Sender<Event>) -> Option<Self> {
        let dialer = Dialer::to(address)?.kept();
        Some(Self { dialer, hello, known: Mutex::default(), events })
    }

    /// Stores what the coordinator says in the file at `path`. If an earlier agent left `reports`, its file is read first, so that a
    /// coordinator that has forgotten their runs refuses this agent. Without reports the file begins empty.
    pub(crate) fn remember(&mut self, path: &Path, reports: bool) -> io::Result<()> {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        let file = private().read(true).write(true).truncate(!reports).open(path)?;
        let text = io::read_to_string(&file)?;
        // Only the first line counts: writing over a longer one leaves the end of that.
        if let Some((start, acknowledged)) = text.lines().next().and_then(|line| line.split_once(' ')) {
            (known.start, known.acknowledged) = (start.to_owned(), acknowledged.parse().unwrap_or_default());
        }
        known.file = Some(file);
        Ok(())
    }

    /// Attaches, and reattaches after every lost connection, until `shutdown`.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        tokio::select! {
            biased; // A leaving node sends nothing more.
            () = shutdown.cancelled() => {}
            () = self.attach_for_ever() => {}
        }
    }

    async fn attach_for_ever(&self) {
        let mut pause = FIRST_PAUSE;
        let mut was_welcomed = false;
        loop {
            let mut welcomed = false;
            let ended = Box::pin(self.attach(&mut welcomed)).await;
            was_welcomed |= welcomed;
            if !was_welcomed && matches!(ended, Ended::Refused { .. }) {
                // A retry would be refused again. A node that was welcomed before retries all the same: its processes still train.
                self.events.send(Event::Refused(ended.to_string())).await.ok();
                return;
            }
            if welcomed {
                pause = FIRST_PAUSE;
                if self.events.send(Event::Detached).await.is_err() {
                    return;
                }
            }
            warn!("{ended}; retrying in {} s", pause.as_secs_f32());
            time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Opens one stream and serves it; returns why it ended.
    async fn attach(&self, welcomed: &mut bool) -> Ended {
        let address = || self.dialer.address().to_owned();
        let channel = match self.dialer.connect().await {
            Ok(channel) => channel,
            Err(error) => return Ended::Unreachable { address: address(), detail: root_cause(&error) },
        };
        let mut client = AgentsClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (outbox, reports) = mpsc::channel::<AgentMessage>(OUTBOX_CAPACITY);
        let (beats, heartbeats) = mpsc::channel(HEARTBEAT_CAPACITY);
        let hello = {
            let known = self.known();
            Hello { start: known.start.clone(), acknowledged: known.acknowledged, ..self.hello.clone() }
        };
        let hello = AgentMessage { body: Some(Body::Hello(hello)) };
        let said = ReceiverStream::new(heartbeats).merge(ReceiverStream::new(reports));
        let said = tokio_stream::once(hello).chain(said);
        let attached = timeout(CONNECT_DEADLINE, async {
            let mut told = client.attach(said).await?.into_inner();
            let first = told.message().await?;
            Ok::<_, tonic::Status>((told, first))
        });
        let (told, welcome) = match attached.await {
            Err(_) => return Ended::Silent { address: address(), limit: CONNECT_DEADLINE },
            Ok(Err(status)) => return self.not_welcome(&status),
            Ok(Ok((told, first))) => match first.and_then(|first| first.body) {
                Some(Told::Welcome(welcome)) => (told, welcome),
                _ => {
                    return Ended::NotWelcome {
                        address: address(),
                        detail: "its first message is not a welcome".into(),
                    };
                }
            },
        };
        let (told, first) = match self.share(&welcome, &outbox, told).await {
            Ok(taken) => taken,
            Err(ended) => return ended,
        };
        info!("joined cluster `{}` at {} as node `{}`", welcome.cluster, self.dialer.address(), self.hello.node);
        *welcomed = true;
        {
            let mut known = self.known();
            known.start.clone_from(&welcome.start);
            known.keep();
        }
        if self.events.send(Event::Attached { outbox, store: welcome.store.clone() }).await.is_err() {
            return Ended::Lost { address: address(), detail: "this agent shuts down".into() };
        }
        if self.events.send(Event::Told(Box::new(first))).await.is_err() {
            return Ended::Lost { address: address(), detail: "this agent shuts down".into() };
        }
        Ended::Lost { address: address(), detail: self.listen(told, &welcome, beats).await }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_welcome(&self, status: &Status) -> Ended {
        let (address, detail) = (self.dialer.address().to_owned(), status.message().to_owned());
        match status.code() {
            Code::FailedPrecondition => Ended::Refused { address, detail },
            _ => Ended::NotWelcome { address, detail },
        }
    }

    /// Proves that this node sees the coordinator's store. Returns the stream, and the first message after the node was accepted.
    async fn share(
        &self,
        welcome: &Welcome,
        outbox: &mpsc::Sender<AgentMessage>,
        mut told: Streaming<CoordinatorMessage>,
    ) -> Result<(Streaming<CoordinatorMessage>, CoordinatorMessage), Ended> {
        let address = || self.dialer.address().to_owned();
        if let Some(detail) = misfit("the coordinator", &welcome.version, welcome.protocol) {
            return Err(Ended::Refused { address: address(), detail });
        }
        let (seen, answer) = store::look(welcome.store.clone(), welcome.check.clone()).await;
        if outbox.send(AgentMessage { body: Some(Body::Store(seen)) }).await.is_err() {
            return Err(Ended::Lost { address: address(), detail: "it closed the stream".into() });
        }
        // If another agent had this node's name, the coordinator answers when the lease of that agent is over.
        let limit = VERDICT_DEADLINE + Duration::from_millis(welcome.lease_ms) * 2;
        let verdict = timeout(limit, told.message()).await;
        // Deletes the answer's file, which the coordinator has read by now.
        drop(answer);
        match verdict {
            Err(_) => Err(Ended::Silent { address: address(), limit }),
            Ok(Err(status)) => Err(self.not_welcome(&status)),
            Ok(Ok(None)) => Err(Ended::Lost { address: address(), detail: "it closed the stream".into() }),
            Ok(Ok(Some(first))) => Ok((told, first)),
        }
    }

    /// Passes the coordinator's messages on and sends heartbeats, until the stream ends; returns why it ended.
    async fn listen(
        &self,
        mut told: Streaming<lockstep_rpc::CoordinatorMessage>,
        welcome: &Welcome,
        beats: mpsc::Sender<AgentMessage>,
    ) -> String {
        let mut beat = time::interval(heartbeat_interval(welcome));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased; // A heartbeat is due three times per lease; messages can wait for it.
                _ = beat.tick() => {
                    // Full: the previous heartbeat is not sent yet, because the connection is stuck. If it stays so, its pings fail.
                    beats.try_send(AgentMessage { body: Some(Body::Heartbeat(Heartbeat {})) }).ok();
                }
                message = told.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(Told::Acknowledged(acknowledged)) = &message.body {
                            let mut known = self.known();
                            known.acknowledged = known.acknowledged.max(acknowledged.applied);
                            known.keep();
                        }
                        if self.events.send(Event::Told(Box::new(message))).await.is_err() {
                            return "this agent shuts down".into();
                        }
                    }
                    Ok(None) => return "it closed the stream".into(),
                    Err(status) => return status.message().to_owned(),
                }
            }
        }
    }
}

/// A third of the lease: two heartbeats in a row may be lost.
fn heartbeat_interval(welcome: &Welcome) -> Duration {
    Duration::from_millis((welcome.lease_ms / 3).max(1))
}

/// The last error of the chain, which names the cause; tonic itself says `transport error` only.
fn root_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        for bad in ["", "host", ":7070", "host:", "host:0", "host:70700", "ho st:1", "host:port"] {
            assert!(Session::new(bad, Hello::default(), mpsc::channel(1).0).is_none(), "{bad:?}");
        }
        for good in ["127.0.0.1:7070", "node-a:1", "[::1]:7070"] {
            assert!(Session::new(good, Hello::default(), mpsc::channel(1).0).is_some(), "{good:?}");
        }
    }

    #[test]
    fn two_heartbeats_may_be_lost() {
        assert_eq!(heartbeat_interval(&Welcome { lease_ms: 9000, ..Default::default() }), Duration::from_secs(3));
        assert_eq!(heartbeat_interval(&Welcome::default()), Duration::from_millis(1));
    }
}
