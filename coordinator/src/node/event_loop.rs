//! The event loop: one task that owns the replica, the leases, the attached nodes and the unanswered requests.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_common::{NodeId, RequestId};
use lockstep_core::command::{
    ArchiveRuns, Configure, NodeDetached, NodeForgotten, NodeJoined, NodeLost, RetryDue, WaitTimedOut,
};
use lockstep_core::replica::{Config, Output, ProposeError, RecoverError, Recovered, Replica, Ticket};
use lockstep_core::state::Retries;
use lockstep_core::state::{Node as NodeState, Presence};
use lockstep_core::{Command, Outcome};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::handle::{Handle, Queues, now_ms};
use super::leases::Leases;
use super::request::{Reply, Request};
use super::sessions::Sessions;
use super::start_timeouts::StartTimeouts;
use super::touched::Touched;
use crate::store::{Store, StoreError};

/// Id of this voter. There is one voter.
const ID: u64 = 1;

/// Ticks of the raft clock until an election, and between heartbeats.
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;

/// Number of applied log entries that are kept for followers that lag.
const KEPT_ENTRIES: usize = 10_000;

/// Maximum number of requests per turn. They share one disk write, and later requests wait for it.
const TURN_REQUESTS: usize = 256;

/// Maximum number of runs that one command archives.
const ARCHIVED_TOGETHER: usize = 100;

/// Maximum number of client reads per turn. A read of all runs takes milliseconds, during which agents wait.
const TURN_READS: usize = 16;

/// The event loop cannot start, or stopped because of an error.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state on disk is inconsistent.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A write failed. Acknowledged commands are on disk; others may be lost.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Time between two checks for nodes to be removed; [`Policy::forget_node`] if that is shorter.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// Configured times and limits of the event loop.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Time without a message after which a node counts as lost.
    pub lease: Duration,
    /// Time between two ticks of the raft clock.
    pub tick: Duration,
    /// How often a run is retried, and the pauses between retries.
    pub retries: Retries,
    /// Time after which a node that is gone or lost is removed.
    pub forget_node: Duration,
    /// Time that a node may take to leave before it counts as lost.
    pub leave: Duration,
    /// Time that a generation may take to start before it counts as failed.
    pub start: Duration,
    /// Number of ended runs in memory: the ones that ended last. Older ones are archived.
    pub keep_ended: usize,
}

/// The event loop and its state. [`Node::run`] drives it.
pub struct Node {
    replica: Replica,
    store: Store,
    requests: mpsc::Receiver<Request>,
    /// Reads of clients and of the page. They have a lower priority than `requests`.
    reads: mpsc::Receiver<Request>,
    ticks: Interval,
    /// Time of the last tick.
    ticked: Instant,
    policy: Policy,
    leases: Leases,
    start_timeouts: StartTimeouts,
    /// Time of the last check for nodes to be removed.
    forgot: Instant,
    sessions: Sessions,
    touched: Touched,
    /// Receivers of outcomes. Proposals of the event loop itself have none.
    waiting: BTreeMap<Ticket, Reply>,
    last_ticket: u64,
    changes: watch::Sender<u64>,
    serving: watch::Sender<bool>,
}

impl Node {
    /// Creates the event loop with the state that was recovered from `store`, and its handle.
    ///
    /// # Errors
    /// `Recover` if the state is inconsistent.
    pub fn new(store: Store, recovered: Recovered, policy: Policy) -> Result<(Self, Handle), NodeError> {
        let config = Config {
            id: ID,
            voters: vec![ID],
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: HEARTBEAT_TICKS,
            kept_entries: KEPT_ENTRIES,
        };
        let replica = Replica::new(config, recovered)?;
        let (changes, changes_seen) = watch::channel(0);
        let (serving, serving_seen) = watch::channel(false);
        let leases = Leases::new(policy.lease);
        let (handle, Queues { requests, reads }) = Handle::new(changes_seen, serving_seen, leases.clone());
        let mut ticks = interval(policy.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let node = Self {
            replica,
            store,
            requests,
            reads,
            ticks,
            ticked: Instant::now(),
            policy,
            leases,
            start_timeouts: StartTimeouts::default(),
            forgot: Instant::now(),
            sessions: Sessions::default(),
            touched: Touched::default(),
            waiting: BTreeMap::new(),
            last_ticket: 0,
            changes,
            serving,
        };
        Ok((node, handle))
    }

    /// Runs until `stop` is cancelled, or until all handles are dropped.
    ///
    /// # Errors
    /// `Store` if a write fails. The event loop stops, because it could otherwise acknowledge commands that are not durable.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), NodeError> {
        let mut taken = Vec::with_capacity(TURN_REQUESTS);
        loop {
            self.turn().await?;
            // Order: shutdown; the clock, which must not starve; requests of agents and commands, with a few reads after each batch;
            // reads alone if there are no requests.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = self.ticks.tick() => self.tick(),
                count = self.requests.recv_many(&mut taken, TURN_REQUESTS) => {
                    if count == 0 {
                        return Ok(());
                    }
                    // Before the requests, so that no run is placed on a node whose stream has ended.
                    self.note_detached();
                    for request in taken.drain(..) {
                        self.handle(request);
                    }
                    // Here, too, so that a steady flow of requests cannot starve reads.
                    self.take_reads();
                }
                Some(read) = self.reads.recv() => {
                    self.handle(read);
                    self.take_reads();
                }
            }
        }
    }

    /// Answers at most [`TURN_READS`] waiting reads.
    fn take_reads(&mut self) {
        for _ in 0..TURN_READS {
            let Ok(read) = self.reads.try_recv() else { return };
            self.handle(read);
        }
    }

    /// Executes all outputs of the replica: writes, then answers. There are no messages to peers, because this is the only voter.
    async fn turn(&mut self) -> Result<(), NodeError> {
        let applied = self.replica.applied_index();
        while let Some(output) = self.replica.take_output() {
            let Output { replies, persist, .. } = output;
            if let Some(persist) = &persist {
                self.touched.note(&persist.rows, persist.applied_index);
            }
            // Before the answers, so that a caller with an answer sees at least the log index of its command.
            self.publish_applied();
            // Before the write: the log entries behind these answers are already durable.
            for (ticket, result) in replies {
                self.answer(ticket, result);
            }
            if let Some(persist) = persist {
                let number = persist.number;
                self.store.append(persist).await?;
                self.replica.persisted(number);
            }
        }
        let serving = self.replica.is_serving();
        if serving != *self.serving.borrow() {
            self.leadership_changed(serving);
        }
        if self.replica.applied_index() != applied {
            self.sessions.publish(self.replica.state(), &self.touched.take_desired());
            self.publish_applied();
        }
        Ok(())
    }

    /// Publishes the applied log index, if it has changed.
    fn publish_applied(&self) {
        let applied = self.replica.applied_index();
        self.changes.send_if_modified(|told| std::mem::replace(told, applied) != applied);
    }

    fn leadership_changed(&mut self, serving: bool) {
        if serving {
            self.restart_leases(Instant::now());
            self.set_policy();
            info!(term = self.replica.leadership().term, applied = self.replica.applied_index(), "leading");
        }
        self.serving.send_replace(serving);
    }

    /// Starts the lease of every node that may be running at `now`, because this coordinator received no messages before.
    fn restart_leases(&self, now: Instant) {
        let there = self.replica.state().nodes().filter(|node| node.presence.may_run());
        self.leases.restart(there.map(|node| node.id.clone()), now);
    }

    /// Proposes the commands of a new leader: its configuration, and the detachment of all nodes without a session.
    fn set_policy(&mut self) {
        let (state, retries) = (self.replica.state(), self.policy.retries);
        let mut commands = Vec::new();
        if state.retries() != retries {
            commands.push(Command::Configure(Configure { retries }));
        }
        let unconnected = state.nodes().filter(|node| node.presence == Presence::Alive && !self.sessions.has(&node.id));
        commands.extend(unconnected.map(|node| detached(node.id.clone(), node.joined)));
        for command in commands {
            self.propose(&command, None);
        }
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Outcome, ProposeError>) {
        if let Some(reply) = self.waiting.remove(&ticket) {
            // An error means that the caller has given up; it can repeat the request with the same id.
            let _ = reply.send(result.map_err(Into::into));
        }
    }

    fn tick(&mut self) {
        self.replica.tick();
        let now = Instant::now();
        let gap = now.duration_since(std::mem::replace(&mut self.ticked, now));
        if !self.replica.is_serving() {
            return;
        }
        if gap > self.policy.lease / 2 {
            // The process was stopped, the machine was suspended, or the disk was slow: the nodes may have sent messages meanwhile.
            warn!(seconds = gap.as_secs_f32(), "this coordinator stood still: restarting the leases of all nodes");
            self.restart_leases(now);
            self.start_timeouts.clear();
        }
        self.note_detached();
        for id in self.leases.expired(now) {
            self.give_up(&id, "no message within the node's lease: it counts as lost");
        }
        for id in self.stayed() {
            self.give_up(&id, "the node did not leave within `leave_ms`: it counts as lost");
        }
        for (run, generation) in self.start_timeouts.overdue(self.replica.state(), now, self.policy.start) {
            let seconds = self.policy.start.as_secs();
            warn!(%run, generation, "not ready {seconds} s after it was placed (`start_limit_s`): retrying the run");
            self.propose(&Command::Silent(WaitTimedOut { at_ms: now_ms(), run, generation, seconds }), None);
        }
        for (run, generation) in self.replica.state().due(now_ms()) {
            self.propose(&Command::Due(RetryDue { run, generation }), None);
        }
        self.archive_ended();
        if now.duration_since(self.forgot) >= FORGET_INTERVAL.min(self.policy.forget_node) {
            self.forgot = now;
            self.forget_nodes();
        }
    }

    /// Archives the oldest ended runs beyond [`Policy::keep_ended`], in batches.
    fn archive_ended(&mut self) {
        let mut runs = self.replica.state().to_archive(self.policy.keep_ended);
        if runs.len() < ARCHIVED_TOGETHER.min(self.policy.keep_ended) {
            return;
        }
        runs.truncate(ARCHIVED_TOGETHER);
        for run in &runs {
            info!(%run, "archiving the run, which ended long ago");
        }
        self.propose(&Command::Archive(ArchiveRuns { runs }), None);
    }

    /// Nodes that have been leaving for longer than [`Policy::leave`].
    fn stayed(&self) -> Vec<NodeId> {
        let before = now_ms().saturating_sub(self.policy.leave.as_millis() as u64);
        let stayed = |node: &&NodeState| node.presence == Presence::Leaving && node.changed_at_ms < before;
        self.replica.state().nodes().filter(stayed).map(|node| node.id.clone()).collect()
    }

    /// Marks a node as lost and closes its session. If its agent is still running, it reconnects and joins again.
    fn give_up(&mut self, id: &NodeId, why: &str) {
        let Some(node) = self.replica.state().node(id).filter(|node| node.presence.may_run()) else { return };
        warn!(node = %id, "{why}");
        let lost =
            Command::NodeLost(NodeLost { at_ms: now_ms(), node: id.clone(), incarnation: node.incarnation.clone() });
        self.propose(&lost, None);
        self.sessions.close(id);
    }

    /// Marks nodes as detached whose stream has ended; nothing is placed on them until they reconnect.
    fn note_detached(&mut self) {
        for (node, joined) in self.sessions.take_ended() {
            self.propose(&detached(node, joined), None);
        }
    }

    /// Removes nodes that have been gone or lost for longer than [`Policy::forget_node`]. Nodes with fences stay, so that the fences do.
    fn forget_nodes(&mut self) {
        let before = now_ms().saturating_sub(self.policy.forget_node.as_millis() as u64);
        let old = |node: &&NodeState| !node.presence.may_run() && node.fences.is_empty() && node.changed_at_ms < before;
        let nodes: Vec<NodeId> = self.replica.state().nodes().filter(old).map(|node| node.id.clone()).collect();
        for node in nodes {
            let mut bytes = [0; 16];
            if getrandom::fill(&mut bytes).is_ok() {
                info!(%node, "removing the node, which was away for longer than `forget_node_s`");
                self.propose(
                    &Command::NodeForgotten(NodeForgotten { request: RequestId::from_bytes(bytes), node }),
                    None,
                );
            }
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Propose(command, reply) => {
                if let Command::NodeJoined(NodeJoined { node, .. }) = &*command {
                    self.leases.heard(node, Instant::now());
                }
                self.propose(&command, Some(reply));
            }
            Request::Read(look) => look(self.replica.state()),
            Request::ChangesSince(index, answer) => {
                // An error means that the caller has given up.
                let _ = answer.send(self.touched.since(index));
            }
            Request::Attach(node, attached) => {
                let slot = self.sessions.attach(node, self.replica.state());
                // If the caller has given up, the next turn detaches the node.
                let _ = attached.send(slot);
            }
            Request::ReadLog(node, request, answer) => self.sessions.read_log(&node, request, answer),
            Request::LogRead(node, reply) => self.sessions.log_read(&node, reply),
        }
    }

    fn propose(&mut self, command: &Command, reply: Option<Reply>) {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        if let Some(reply) = reply {
            self.waiting.insert(ticket, reply);
        }
        self.replica.propose(ticket, command);
    }
}

fn detached(node: NodeId, joined: u64) -> Command {
    Command::NodeDetached(NodeDetached { at_ms: now_ms(), node, joined })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_agents_say_does_not_wait_behind_the_reads_of_clients() {
        const READS: usize = 600;
        let dir = tempfile::tempdir().unwrap();
        let (store, recovered) = crate::store::testing::opened(dir.path()).unwrap();
        let policy = crate::settings::Settings::embedded(dir.path()).policy;
        let (node, handle) = Node::new(store, recovered, policy).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(node.run(stop.clone()));
        handle.serving().await.unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let read = |_| {
            let (handle, done) = (handle.clone(), Arc::clone(&done));
            // As long as a list of thousands of runs takes.
            let look = move |_: &_| {
                std::thread::sleep(Duration::from_millis(1));
                done.fetch_add(1, Ordering::SeqCst);
            };
            tokio::spawn(async move { handle.read(look).await })
        };
        let reads: Vec<_> = (0..READS).map(read).collect();
        while done.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let before = done.load(Ordering::SeqCst);
        let retries = Retries { crashes: 9, ..policy.retries };
        handle.propose(Command::Configure(Configure { retries })).await.unwrap().outcome().await.unwrap();
        let meanwhile = done.load(Ordering::SeqCst) - before;
        assert!(meanwhile <= 10 * TURN_READS, "{meanwhile} of {READS} reads came before the command");
        assert!(handle.read_first(|state| state.retries().crashes).await.unwrap() == 9);
        for read in reads {
            read.await.unwrap().unwrap();
        }
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
