//! Followers of runs. One task encodes the document of a changed run once, for all followers of the run.
//!
//! ```text
//!   Follow --Followers--> requests --> teller: changes_since -> read followed runs -> a watch channel per run
//!                                                                                     |  the newest document, shared
//!   client <-- one message at a time <-- a stream per follower <----------------------+
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockstep_common::RunId;
use lockstep_core::view::RunView;
use lockstep_rpc::{JsonReply, busy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::node::{CallError, Changes, Handle};
use crate::query::{Runs, documents};

/// Maximum number of followers of runs, reports and logs together. Each waiting `coord submit --follow` is one.
const FOLLOWERS: usize = 1024;

/// Maximum size of a document that every follower may have queued, in bytes.
const SMALL_BYTES: usize = 64 << 10;

/// Total size of larger documents that may be queued for followers, in units of [`SMALL_BYTES`]: 128 MiB. Connections buffer as much again.
const LARGE_UNITS: usize = 2048;

/// Capacity of the queue of new followers. Each waits for an answer.
const QUEUE: usize = 64;

/// The newest document of a run.
#[derive(Clone, Debug)]
struct Told {
    /// `None`: there is no such run.
    json: Option<Arc<str>>,
    /// Whether the run has ended, so that the document will not change.
    is_last: bool,
}

/// A new follower, which waits for the channel of the run.
struct Joining {
    run: RunId,
    answer: oneshot::Sender<watch::Receiver<Told>>,
}

/// Serves followers. Clones share the limits.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    joining: mpsc::Sender<Joining>,
    /// One permit per follower.
    permits: Arc<Semaphore>,
    /// Permits for queued large documents: one per [`SMALL_BYTES`].
    large: Arc<Semaphore>,
    /// Number of documents that were encoded.
    #[cfg(test)]
    made: Arc<AtomicU64>,
}

impl Followers {
    /// Starts the task that encodes documents of `runs`. It ends when `stop` is cancelled, or with the event loop behind `handle`.
    pub(super) fn new(handle: Handle, runs: Runs, stop: CancellationToken) -> Self {
        let (joining, requests) = mpsc::channel(QUEUE);
        let changes = handle.changes();
        let made = Arc::default();
        let teller = Teller {
            index: handle.applied(),
            handle,
            runs,
            requests,
            followed: BTreeMap::new(),
            made: Arc::clone(&made),
        };
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // It ends with an error of the event loop or of the archive.
                _ = teller.run(changes) => {}
            }
        });
        Self {
            joining,
            permits: Arc::new(Semaphore::new(FOLLOWERS)),
            large: Arc::new(Semaphore::new(LARGE_UNITS)),
            #[cfg(test)]
            made,
        }
    }

    /// A permit for one follower.
    ///
    /// # Errors
    /// `Unavailable` if there are [`FOLLOWERS`] already.
    pub(super) fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| busy(format!("{FOLLOWERS} clients follow runs already, which is the maximum: try again")))
    }

    /// Sends the document of `run` to `to`, now and after each change, until the run has ended or the client is gone. A slow client skips
    /// documents: after each one it gets the newest.
    pub(super) async fn follow(
        &self,
        run: RunId,
        permit: OwnedSemaphorePermit,
        to: mpsc::Sender<Result<JsonReply, Status>>,
    ) {
        if let Err(status) = self.tell(run, &to).await {
            // An error means that the client is gone.
            let _ = to.send(Err(status)).await;
        }
        drop(permit);
    }

    async fn tell(&self, run: RunId, to: &mpsc::Sender<Result<JsonReply, Status>>) -> Result<(), Status> {
        let (answer, channel) = oneshot::channel();
        self.joining.send(Joining { run, answer }).await.map_err(|_| CallError::Stopping)?;
        let mut told = channel.await.map_err(|_| CallError::Stopping)?;
        let mut held = None;
        loop {
            // Waits until the client has received the previous document, before the next one is copied.
            let Ok(turn) = to.reserve().await else { return Ok(()) };
            let Told { json, is_last } = told.borrow_and_update().clone();
            let Some(json) = json else { return Ok(()) };
            drop(held.take());
            held = self.hold(json.len())?;
            turn.send(Ok(JsonReply { json: json.as_ref().to_owned() }));
            drop(json);
            if is_last {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = to.closed() => return Ok(()),
                changed = told.changed() => changed.map_err(|_| CallError::Stopping)?,
            }
        }
    }

    /// Permits for a queued document of `bytes`; none for a small document.
    ///
    /// # Errors
    /// `Unavailable` if too many large documents are queued.
    fn hold(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if bytes <= SMALL_BYTES {
            return Ok(None);
        }
        let units = u32::try_from(bytes.div_ceil(SMALL_BYTES)).unwrap_or(u32::MAX);
        let held = Arc::clone(&self.large).try_acquire_many_owned(units);
        let words = || {
            let most = LARGE_UNITS * SMALL_BYTES;
            format!(
                "the run's document ({bytes} bytes) exceeds the {most} bytes that may be queued for clients: try again"
            )
        };
        held.map(Some).map_err(|_| busy(words()))
    }
}

/// The task that encodes documents.
struct Teller {
    handle: Handle,
    runs: Runs,
    requests: mpsc::Receiver<Joining>,
    /// The channel of each followed run.
    followed: BTreeMap<RunId, watch::Sender<Told>>,
    /// Log index up to which changes were published.
    index: u64,
    made: Arc<AtomicU64>,
}

impl Teller {
    async fn run(mut self, mut changes: Changes) -> Result<(), Status> {
        loop {
            // Unbiased, so that neither frequent changes nor frequent joins can starve the other.
            tokio::select! {
                changed = changes.next(), if !self.followed.is_empty() => {
                    changed?;
                    self.forget_unfollowed();
                    let began = Instant::now();
                    self.tell_changes().await?;
                    rest(began).await;
                }
                joining = self.requests.recv() => {
                    let Some(joining) = joining else { return Ok(()) };
                    self.forget_unfollowed();
                    self.join(joining).await?;
                }
            }
        }
    }

    async fn join(&mut self, Joining { run, answer }: Joining) -> Result<(), Status> {
        if self.followed.is_empty() {
            // Without followers, earlier changes are irrelevant.
            self.index = self.handle.applied();
        }
        let channel = if let Some(teller) = self.followed.get(&run) {
            teller.subscribe()
        } else {
            let (teller, channel) = watch::channel(self.look(&run).await?);
            self.followed.insert(run, teller);
            channel
        };
        // An error means that the follower has given up. `forget_unfollowed` removes its channel later.
        let _ = answer.send(channel);
        Ok(())
    }

    /// Encodes and publishes the documents of followed runs that have changed.
    async fn tell_changes(&mut self) -> Result<(), Status> {
        let changed = self.handle.changes_since(self.index).await?;
        self.index = changed.index;
        for run in changed.runs.iter().filter(|run| self.followed.contains_key(run)) {
            let now = self.look(run).await?;
            if let Some(teller) = self.followed.get(run) {
                teller.send_if_modified(|before| {
                    let is_other = before.json != now.json;
                    if is_other {
                        *before = now;
                    }
                    is_other
                });
            }
        }
        Ok(())
    }

    async fn look(&self, run: &RunId) -> Result<Told, Status> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(match self.runs.one(run.clone(), |run| (RunView::of(run), run.state.status.is_final())).await? {
            Some((view, is_last)) => Told { json: Some(documents::encode_run(&view).into()), is_last },
            None => Told { json: None, is_last: true },
        })
    }

    fn forget_unfollowed(&mut self) {
        self.followed.retain(|_, teller| teller.receiver_count() > 0);
    }
}

/// Sleeps as long as the work since `began` took, so that encoding takes at most half of the time.
async fn rest(began: Instant) {
    const SHORT: Duration = Duration::from_millis(1);
    let took = began.elapsed();
    if took > SHORT {
        tokio::time::sleep(took).await;
    }
}

#[cfg(test)]
mod tests {
    use lockstep_common::RequestId;
    use lockstep_common::job::parse_toml;
    use tokio::time::timeout;
    use tonic::Code;

    use super::*;
    use crate::node::Node;
    use crate::settings::Settings;

    const DEADLINE: Duration = Duration::from_secs(10);
    const JOB: &str = "name = \"walk\"\nsteps = 4\nranks = 1\nbatch = { size = 1 }\n\
         model = { kind = \"mlp\", hidden = [4], outputs = 2 }\n\
         data = { kind = \"csv\", path = \"data.csv\", target = \"y\" }\noptimizer = { kind = \"sgd\", lr = 0.1 }\n";

    type Messages = mpsc::Receiver<Result<JsonReply, Status>>;

    struct Loop {
        handle: Handle,
        followers: Followers,
        stop: CancellationToken,
        request: u8,
        _dir: tempfile::TempDir,
    }

    impl Loop {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (store, recovered) = crate::store::testing::opened(dir.path()).unwrap();
            let archive = store.archive();
            let (node, handle) = Node::new(store, recovered, Settings::embedded(dir.path()).policy).unwrap();
            let stop = CancellationToken::new();
            tokio::spawn(node.run(stop.clone()));
            handle.serving().await.unwrap();
            let followers = Followers::new(handle.clone(), Runs::new(handle.clone(), archive), stop.clone());
            Self { handle, followers, stop, request: 0, _dir: dir }
        }

        fn request(&mut self) -> RequestId {
            self.request += 1;
            RequestId::from_bytes([self.request; 16])
        }

        async fn submit(&mut self) -> RunId {
            let job = String::from_utf8(parse_toml(JOB, &[]).unwrap().canonical()).unwrap();
            let request = self.request();
            self.handle.submit(request, job, "/x".into(), None, Vec::new()).await.unwrap()
        }

        async fn note(&mut self, run: &RunId, note: &str) {
            let request = self.request();
            self.handle.annotate(request, run.as_str(), None, Some(note.to_owned())).await.unwrap();
        }

        fn follow(&self, run: &RunId) -> Messages {
            let (to, messages) = mpsc::channel(1);
            let (followers, run, permit) = (self.followers.clone(), run.clone(), self.followers.permit().unwrap());
            tokio::spawn(async move { followers.follow(run, permit, to).await });
            messages
        }

        fn made(&self) -> u64 {
            self.followers.made.load(Ordering::Relaxed)
        }
    }

    async fn next(messages: &mut Messages) -> Option<String> {
        timeout(DEADLINE, messages.recv()).await.expect("a message in time").map(|message| message.unwrap().json)
    }

    /// Receives messages until one has `note`. Returns their number.
    async fn until_note(messages: &mut Messages, note: &str) -> usize {
        let mut taken = 1;
        while !next(messages).await.expect("the stream is open").contains(&format!("\"note\":\"{note}\"")) {
            taken += 1;
        }
        taken
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_document_is_made_once_for_all_followers_of_a_run_and_not_for_changes_of_others() {
        let mut node = Loop::new().await;
        let run = node.submit().await;
        let mut followers: Vec<Messages> = (0..12).map(|_| node.follow(&run)).collect();
        for messages in &mut followers {
            next(messages).await.unwrap();
        }
        for _ in 0..30 {
            node.submit().await;
        }
        node.note(&run, "mine").await;
        for messages in &mut followers {
            assert_eq!(until_note(messages, "mine").await, 1, "no message after changes of other runs");
        }
        assert_eq!(node.made(), 2, "documents for 12 followers, one change of their run and 30 of other runs");
        // Each stream ends with the run.
        let request = node.request();
        node.handle.cancel(request, run.as_str()).await.unwrap();
        for messages in &mut followers {
            assert!(next(messages).await.unwrap().contains("\"status\":\"cancelled\""));
            assert_eq!(next(messages).await, None);
        }
        assert_eq!(node.made(), 3);
        node.stop.cancel();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_document_waits_for_a_slow_follower_and_the_newest_comes_next() {
        let mut node = Loop::new().await;
        let run = node.submit().await;
        let (mut slow, mut fast) = (node.follow(&run), node.follow(&run));
        next(&mut fast).await.unwrap();
        timeout(DEADLINE, async {
            while slow.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("its first message waits");
        for number in 0..20 {
            node.note(&run, &number.to_string()).await;
        }
        until_note(&mut fast, "19").await;
        assert_eq!(slow.len(), 1);
        assert_eq!(until_note(&mut slow, "19").await, 2, "the first document, and the newest");
        node.stop.cancel();
    }

    #[tokio::test]
    async fn followers_and_their_large_documents_have_limits_in_words() {
        let node = Loop::new().await;
        let followers = &node.followers;
        assert!(followers.hold(SMALL_BYTES).unwrap().is_none());
        let held = followers.hold(SMALL_BYTES * LARGE_UNITS).unwrap();
        let refused = followers.hold(SMALL_BYTES + 1).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(
            refused.message(),
            "the run's document (65537 bytes) exceeds the 134217728 bytes that may be queued for clients: try again"
        );
        drop(held);
        assert!(followers.hold(SMALL_BYTES + 1).unwrap().is_some());
        let permits: Vec<_> = (0..FOLLOWERS).map(|_| followers.permit().unwrap()).collect();
        let refused = followers.permit().unwrap_err();
        assert_eq!(refused.message(), "1024 clients follow runs already, which is the maximum: try again");
        drop(permits);
        assert!(followers.permit().is_ok());
        node.stop.cancel();
    }
}
