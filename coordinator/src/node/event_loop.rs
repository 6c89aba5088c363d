//! The event loop: one task owns the replica, the leases, the attached nodes and everybody who waits for an answer.

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

/// This voter's id. One voter for now; more are the same code.
const ID: u64 = 1;

/// Ticks of the raft clock to an election, and between heartbeats.
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;

/// Applied entries kept for followers that lag.
const KEPT_ENTRIES: usize = 10_000;

/// Requests that one turn takes: they share one disk write, and those behind them wait for it.
const TURN_REQUESTS: usize = 256;

/// Runs that go to the archive with one command.
const ARCHIVED_TOGETHER: usize = 100;

/// Reads of clients that one turn takes: a read of all runs takes milliseconds, and agents wait meanwhile.
const TURN_READS: usize = 16;

/// An event loop that cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What was on disk is no state to go on from.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A write failed. What was not acknowledged may be lost; what was is on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Longest time between two looks for nodes that have been away for long; a shorter `forget_node` is the time itself.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// What the loop's owner sets.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Silence after which a node is given up.
    pub lease: Duration,
    /// Between two ticks of the raft clock.
    pub tick: Duration,
    /// How often runs are tried again.
    pub retries: Retries,
    /// How long a node that is gone or lost is remembered.
    pub forget_node: Duration,
    /// How long a node may be leaving before it counts as lost.
    pub leave: Duration,
    /// How long a generation may be starting before it counts as failed.
    pub start: Duration,
    /// Ended runs that stay in memory, those that ended last; those before go to the archive.
    pub keep_ended: usize,
}

/// The owner of everything.
pub struct Node {
    replica: Replica,
    store: Store,
    requests: mpsc::Receiver<Request>,
    /// Of clients and of the page, who come after agents and commands.
    reads: mpsc::Receiver<Request>,
    ticks: Interval,
    /// When the last one was.
    ticked: Instant,
    policy: Policy,
    leases: Leases,
    start_timeouts: StartTimeouts,
    /// When nodes were last forgotten.
    forgot: Instant,
    sessions: Sessions,
    touched: Touched,
    /// Who waits for which proposal; proposals of the loop itself have nobody.
    waiting: BTreeMap<Ticket, Reply>,
    last_ticket: u64,
    changes: watch::Sender<u64>,
    serving: watch::Sender<bool>,
}

impl Node {
    /// A node that goes on from what `store` held, and its handle.
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

    /// Runs until `stop`.
    ///
    /// # Errors
    /// `Store` if something could not be written: going on could acknowledge what is not durable.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), NodeError> {
        let mut taken = Vec::with_capacity(TURN_REQUESTS);
        loop {
            self.turn().await?;
            // First the end, then the clock, which must not starve, then what agents say and what is to be written, as much as there
            // is, and a few reads with it; reads alone when there is nothing else.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = self.ticks.tick() => self.tick(),
                count = self.requests.recv_many(&mut taken, TURN_REQUESTS) => {
                    if count == 0 {
                        return Ok(());
                    }
                    // Before what others say of them: a node that has gone gets nothing new.
                    self.note_detached();
                    for request in taken.drain(..) {
                        self.handle(request);
                    }
                    // However much is written, reads come to their turn.
                    self.take_reads();
                }
                Some(read) = self.reads.recv() => {
                    self.handle(read);
                    self.take_reads();
                }
            }
        }
    }

    /// Answers some of the reads that wait.
    fn take_reads(&mut self) {
        for _ in 0..TURN_READS {
            let Ok(read) = self.reads.try_recv() else { return };
            self.handle(read);
        }
    }

    /// Carries out all that the replica wants done. Messages to peers there are none of: it is the only voter.
    async fn turn(&mut self) -> Result<(), NodeError> {
        let applied = self.replica.applied_index();
        while let Some(output) = self.replica.take_output() {
            let Output { replies, persist, .. } = output;
            if let Some(persist) = &persist {
                self.touched.note(&persist.rows, persist.applied_index);
            }
            // Before the answers, whose commands it covers.
            self.publish_applied();
            // The applied state may be told as soon as it is applied: its entries are durable.
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

    /// Tells those who wait for changes up to where the log is applied, once.
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

    /// Nobody listened before `now`: every node that may be there counts as heard.
    fn restart_leases(&self, now: Instant) {
        let there = self.replica.state().nodes().filter(|node| node.presence.may_run());
        self.leases.restart(there.map(|node| node.id.clone()), now);
    }

    /// What this leader says at its start: its configuration, and that no node is connected but those that are.
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
            // A caller that gave up asks again, if it still wants to know.
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
            // A stopped process, a suspended machine, a slow disk: whoever stood still himself blames nobody.
            warn!(seconds = gap.as_secs_f32(), "this coordinator stood still: the leases of all nodes begin anew");
            self.restart_leases(now);
            self.start_timeouts.clear();
        }
        self.note_detached();
        for id in self.leases.expired(now) {
            self.give_up(&id, "was silent for longer than its lease");
        }
        for id in self.stayed() {
            self.give_up(&id, "said long ago that it leaves, and is still here");
        }
        for (run, generation) in self.start_timeouts.overdue(self.replica.state(), now, self.policy.start) {
            let seconds = self.policy.start.as_secs();
            warn!(%run, generation, "has been starting for {seconds} s: it is tried again");
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

    /// Runs that ended long ago leave memory, some at a time.
    fn archive_ended(&mut self) {
        let mut runs = self.replica.state().to_archive(self.policy.keep_ended);
        if runs.len() < ARCHIVED_TOGETHER.min(self.policy.keep_ended) {
            return;
        }
        runs.truncate(ARCHIVED_TOGETHER);
        for run in &runs {
            info!(%run, "goes to the archive");
        }
        self.propose(&Command::Archive(ArchiveRuns { runs }), None);
    }

    /// Nodes that have been leaving for longer than they may.
    fn stayed(&self) -> Vec<NodeId> {
        let before = now_ms().saturating_sub(self.policy.leave.as_millis() as u64);
        let stayed = |node: &&NodeState| node.presence == Presence::Leaving && node.changed_at_ms < before;
        self.replica.state().nodes().filter(stayed).map(|node| node.id.clone()).collect()
    }

    /// A node counts as lost. If its agent is there after all, it attaches anew, and joins again.
    fn give_up(&mut self, id: &NodeId, why: &str) {
        let Some(node) = self.replica.state().node(id).filter(|node| node.presence.may_run()) else { return };
        warn!(node = %id, "{why}");
        let lost =
            Command::NodeLost(NodeLost { at_ms: now_ms(), node: id.clone(), incarnation: node.incarnation.clone() });
        self.propose(&lost, None);
        self.sessions.close(id);
    }

    /// Nodes whose stream has ended get no more work.
    fn note_detached(&mut self) {
        for (node, joined) in self.sessions.take_ended() {
            self.propose(&detached(node, joined), None);
        }
    }

    /// Forgets nodes that have been away for long, but for those with a fence, which says what they did.
    fn forget_nodes(&mut self) {
        let before = now_ms().saturating_sub(self.policy.forget_node.as_millis() as u64);
        let old = |node: &&NodeState| !node.presence.may_run() && node.fences.is_empty() && node.changed_at_ms < before;
        let nodes: Vec<NodeId> = self.replica.state().nodes().filter(old).map(|node| node.id.clone()).collect();
        for node in nodes {
            let mut bytes = [0; 16];
            if getrandom::fill(&mut bytes).is_ok() {
                info!(%node, "is forgotten: it has been away for long");
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
                // A caller that gave up is no concern of ours.
                let _ = answer.send(self.touched.since(index));
            }
            Request::Attach(node, attached) => {
                let slot = self.sessions.attach(node, self.replica.state());
                // Gone again: the slot is closed at the next change.
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
            // As a list of thousands of runs.
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
