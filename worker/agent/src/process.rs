//! One process as the agent knows it: from the first time it is desired until it has ended, is no longer desired, and all
//! its reports are acknowledged.
//!
//! ```text
//!  Waiting ─built─> Starting ─connects─> Joined ─peers─> Training ─finishes─> Finished ─all safe─> Drained
//!     │                │                   └───────┬────────┘                    └──────hangs up──────┘ │
//!     │                │                        hangs up                                                │
//!     │ stopped,       │                           v                                                    │
//!     │ not built      │                        HungUp                                                  │
//!     │                └─────────────── its process ends, in any of these ──────────────────────────────┘
//!     │                                            v
//!     │                    Ended: until the connection closes, or none was opened in time
//!     │                                            v
//!     └─────────────────────────────────────────> Gone: its end is recorded
//! ```
//!
//! Whether the coordinator desires a process is independent of its state. A process that is no longer desired is stopped, but a
//! finished one ends by itself. Each method takes one event and then makes all transitions that are possible (`advance`); none waits.

use std::time::Duration;

use lockstep_common::Digest;
use lockstep_rpc::agent_command::Body as Command;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{AgentCommand, Assignment, Empty, ExitCause, Exited, Failed, Peers, ProcessMessage, Report, Save};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use self::connection::Connection;
use self::reports::Reports;
use self::running::Running;
use self::state::{State, Waiting};
use crate::child::Child;
use crate::child::Exit;
use crate::child::LogWriter;
use crate::child::ProcessKey;
use crate::event::ConnectionId;
use crate::machine::nvml::{Feed, Monitor};
use crate::spool::Spool;

mod connection;
mod reports;
mod running;
mod state;

/// Exit code of a process that SIGTERM ended.
const TERMINATED: i32 = 128 + 15;

/// Why a process was not started.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) reason: String,
    /// Whether a retry may succeed.
    pub(crate) transient: bool,
}

impl NotStarted {
    /// A reason that every retry would meet again.
    pub(crate) fn for_good(reason: String) -> Self {
        Self { reason, transient: false }
    }
}

/// One process, and its reports.
pub(crate) struct Process {
    key: ProcessKey,
    /// Whether the coordinator desires it; true until the coordinator says otherwise.
    desired: bool,
    /// The addresses of all processes of its generation; empty until all are ready.
    peers: Vec<String>,
    /// The outcome of its run's last checkpoint, as far as known.
    save: Save,
    state: State,
    reports: Reports,
    /// The readings of its device, from its first report on.
    readings: Option<Feed>,
}

impl Process {
    /// A process that was just started, or has failed because it could not be started.
    pub(crate) fn started(
        key: ProcessKey,
        assignment: Assignment,
        child: Result<Child, NotStarted>,
        spool: Spool,
    ) -> Self {
        let mut process = Self::new(key, State::Gone, spool);
        process.start(assignment, child);
        process
    }

    /// A process that starts when the `program` of its job is built.
    pub(crate) fn waiting(
        key: ProcessKey,
        assignment: Assignment,
        spool: Spool,
        program: Digest,
        log: Option<LogWriter>,
    ) -> Self {
        Self::new(key, State::Waiting(Waiting { assignment, program, log }), spool)
    }

    /// A process of an earlier agent, of which only the spool is left. `end` is its last report, if the spool has none.
    pub(crate) fn left_over(key: ProcessKey, spool: Spool, end: Option<Exited>) -> Self {
        let mut process = Self::new(key, State::Gone, spool);
        if let Some(end) = end {
            process.reports.record(Body::Exited(end), None);
        }
        process
    }

    fn new(key: ProcessKey, state: State, spool: Spool) -> Self {
        let (peers, save) = (Vec::new(), Save::default());
        Self { key: key.clone(), desired: true, peers, save, state, reports: Reports::new(key, spool), readings: None }
    }

    /// Key of the program that it waits for.
    pub(crate) fn waits_for(&self) -> Option<&Digest> {
        match &self.state {
            State::Waiting(waiting) => Some(&waiting.program),
            _ => None,
        }
    }

    /// Takes its log, if it waits for its program and no build writes to the log.
    pub(crate) fn take_log(&mut self) -> Option<LogWriter> {
        self.state.waiting()?.log.take()
    }

    /// The wait for its program is over: it was started, or has failed.
    pub(crate) fn begin(&mut self, child: Result<Child, NotStarted>) {
        match self.state.take() {
            State::Waiting(Waiting { assignment, .. }) => self.start(assignment, child),
            other => self.state = other,
        }
    }

    fn start(&mut self, assignment: Assignment, child: Result<Child, NotStarted>) {
        match child {
            Ok(child) => self.state = State::Starting(Running::new(child, assignment)),
            Err(NotStarted { reason, transient }) => {
                warn!("{}: {reason}", self.key);
                self.reports.record(Body::Failed(Failed { reason, transient }), None);
            }
        }
        self.advance();
    }

    /// Its assignment, until it is gone.
    pub(crate) fn assignment(&self) -> Option<&Assignment> {
        self.state.assignment()
    }

    /// The coordinator desires it; `save` is the outcome of its run's last checkpoint.
    pub(crate) fn want(&mut self, save: Save) {
        self.desired = true;
        self.save = save;
        self.advance();
    }

    /// All processes of its generation are ready, and listen at `peers`.
    pub(crate) fn meet(&mut self, peers: &[String]) {
        self.peers = peers.to_vec();
        self.advance();
    }

    /// The coordinator's store is at `store`. A process that writes to another directory is stopped: its checkpoints would not be found.
    pub(crate) fn store_is(&mut self, store: &str) {
        if let Some(untold) = self.state.untold() {
            store.clone_into(&mut untold.store);
        } else if let Some(had) = self.state.assignment().map(|assignment| assignment.store.clone())
            && had != store
            && self.is_alive()
        {
            warn!("stopping {}: its checkpoints go to `{had}`, but the store is now `{store}`", self.key);
            self.stop(ExitCause::Dismissed);
        }
    }

    /// The coordinator does not desire it any more.
    pub(crate) fn dismiss(&mut self) {
        if self.desired {
            self.desired = false;
            info!("{} is no longer desired", self.key);
        }
        self.advance();
    }

    /// Stops it, or the wait for its program; `cause` is reported with its end.
    pub(crate) fn stop(&mut self, cause: ExitCause) {
        if let Some(running) = self.state.running() {
            running.stop(cause);
        } else if self.state.waiting().is_some() {
            self.state = State::Gone;
            self.record_exit(TERMINATED, String::new(), cause, None);
        }
    }

    /// It connected. The connection is closed again if it has connected before, or has no running process.
    pub(crate) fn join(&mut self, id: ConnectionId, commands: mpsc::Sender<AgentCommand>) {
        let connection = Connection::new(id, commands);
        self.state = match self.state.take() {
            State::Starting(mut running) => {
                connection.assign(&running.assignment);
                running.restart_limit();
                State::Joined(running, connection)
            }
            // It sent its messages and ended before the agent accepted the connection.
            State::Ended(running, exit, None) => State::Ended(running, exit, Some(connection)),
            other => {
                self.state = other;
                return warn!("closed a connection of {}: it has connected before, or does not run", self.key);
            }
        };
        self.advance();
    }

    /// Records a message. One that only the agent may write closes the connection.
    pub(crate) fn say(&mut self, id: ConnectionId, message: ProcessMessage, accepted: oneshot::Sender<()>) {
        if !self.state.is_connected(id) {
            return;
        }
        match message.body {
            None | Some(Body::Hello(_) | Body::Exited(_)) => {
                warn!("closed the connection of {}: it sent a message that only an agent may write", self.key);
            }
            Some(Body::Alive(reported)) => {
                if let Some(running) = self.state.running() {
                    running.report_progress(reported);
                }
                accepted.send(()).ok();
            }
            Some(body) => {
                let finishes = matches!(body, Body::Finished(_));
                self.reports.record(body, Some(accepted));
                if finishes {
                    self.finish();
                }
                self.advance();
            }
        }
    }

    /// Records new readings of its device, before the process's own report of `step`.
    pub(crate) fn report_device(&mut self, id: ConnectionId, monitor: &Monitor, step: u64) {
        let Some(device) = self.state.assignment().map(|assignment| &assignment.device) else { return };
        // No readings while reports wait in memory for the disk.
        if !self.state.is_connected(id) || self.is_held() {
            return;
        }
        let feed = self.readings.get_or_insert_with(|| monitor.feed(device, self.key.process));
        if let Some(block) = feed.next(step) {
            self.reports.record(Body::Block(block), None);
        }
    }

    fn finish(&mut self) {
        self.state = match self.state.take() {
            State::Joined(running, connection) | State::Training(running, connection, _) => {
                State::Finished(running, connection)
            }
            other => other,
        };
    }

    /// Restarts its progress limit, because its messages were not read until now.
    pub(crate) fn restart_limit(&mut self) {
        if let Some(running) = self.state.running() {
            running.restart_limit();
        }
    }

    /// Stops it if it made no progress for `limit` and does not wait for other processes.
    pub(crate) fn end_if_hung(&mut self, limit: Duration) {
        if let Some(running) = self.state.running() {
            running.end_if_hung(&self.key, limit);
        }
    }

    /// Its connection ended: it should end by itself, and is stopped otherwise.
    pub(crate) fn hang_up(&mut self, id: ConnectionId) {
        if self.state.is_connected(id) {
            self.state = match self.state.take() {
                State::Joined(running, _) | State::Training(running, ..) => State::HungUp(running),
                State::Finished(running, _) | State::Drained(running, _) => State::Drained(running, None),
                State::Ended(running, exit, _) => self.gone(running, exit),
                other => other,
            };
            if let Some(running) = self.state.running() {
                running.child.retire();
            }
        }
        self.advance();
    }

    /// The operating-system process ended.
    pub(crate) fn end(&mut self, exit: Exit) {
        self.state = match self.state.take() {
            State::Starting(running) => State::Ended(running, exit, None),
            State::Joined(running, connection)
            | State::Training(running, connection, _)
            | State::Finished(running, connection)
            | State::Drained(running, Some(connection)) => State::Ended(running, exit, Some(connection)),
            State::HungUp(running) | State::Drained(running, None) => self.gone(running, exit),
            other => other,
        };
        self.advance();
    }

    /// Its linger is over: without a connection by now, it has none.
    pub(crate) fn linger_expired(&mut self) {
        self.state = match self.state.take() {
            State::Ended(running, exit, None) => self.gone(running, exit),
            other => other,
        };
        self.advance();
    }

    /// The coordinator has all reports up to `sequence`.
    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        self.reports.acknowledge(sequence);
        self.advance();
    }

    /// Retries to spool the reports that are held in memory.
    pub(crate) fn retry(&mut self) {
        self.reports.spool_held();
        self.advance();
    }

    /// The next report to send.
    pub(crate) fn next_report(&mut self) -> Option<Report> {
        self.reports.next()
    }

    /// Marks all unacknowledged reports as unsent, for a new stream.
    pub(crate) fn rewind(&mut self) {
        self.reports.rewind();
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.reports.has_unsent()
    }

    /// Whether reports wait in memory for the disk.
    pub(crate) fn is_held(&self) -> bool {
        self.reports.is_held()
    }

    /// Whether the coordinator desires it.
    pub(crate) fn is_desired(&self) -> bool {
        self.desired
    }

    /// Whether it runs or waits to be started: its log may still grow.
    pub(crate) fn is_alive(&self) -> bool {
        self.state.is_alive()
    }

    /// Whether it has ended and its end is spooled.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone) && !self.is_held()
    }

    /// Whether the coordinator has acknowledged all spooled reports.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.reports.is_acknowledged()
    }

    /// Name of its device, until it is gone.
    pub(crate) fn device(&self) -> Option<&str> {
        Some(self.state.assignment()?.device.as_str())
    }

    /// Whether nothing is left to do: it is not desired, gone, and all its reports are acknowledged.
    pub(crate) fn is_over(&self) -> bool {
        !self.desired && self.is_gone() && self.is_acknowledged()
    }

    /// Deletes its spool, but not its log.
    pub(crate) fn remove(self) {
        self.reports.remove();
    }

    /// Makes all transitions that are possible now, and sends the commands that belong to them. Idempotent.
    fn advance(&mut self) {
        let is_safe = !self.is_held() && (self.is_acknowledged() || !self.desired);
        self.state = match self.state.take() {
            State::Joined(running, connection) if !self.peers.is_empty() && connection.tell(self.start_command()) => {
                State::Training(running, connection, Save::default())
            }
            State::Finished(running, connection) if is_safe => {
                running.child.retire();
                if connection.tell(Command::Drained(Empty {})) {
                    State::Drained(running, Some(connection))
                } else {
                    State::Finished(running, connection)
                }
            }
            other => other,
        };
        if let State::Training(_, connection, told) = &mut self.state
            && self.save != *told
            && connection.tell(Command::Save(self.save))
        {
            *told = self.save;
        }
        if !self.desired && !matches!(self.state, State::Finished(..) | State::Drained(..)) {
            self.stop(ExitCause::Dismissed);
        }
    }

    fn start_command(&self) -> Command {
        let ProcessKey { run, generation, .. } = &self.key;
        Command::Start(Peers { run: run.to_string(), generation: *generation, addresses: self.peers.clone() })
    }

    fn gone(&mut self, running: Running, exit: Exit) -> State {
        self.record_exit(exit.code, exit.output, running.stopped, running.hung);
        State::Gone
    }

    fn record_exit(&mut self, code: i32, output: String, cause: ExitCause, hung: Option<String>) {
        let (cause, hung) = (cause.into(), hung.unwrap_or_default());
        self.reports.record(Body::Exited(Exited { code, output, cause, hung }), None);
    }
}

#[cfg(test)]
mod tests;
