//! One process as the agent knows it, from the first time it is desired until it is gone, no longer desired, and
//! everything it said is acknowledged.
//!
//! ```text
//!  Waiting ── its program is built ──> Alive ── it ended ──> Dying ── its last messages came ──> Gone (its end is in the spool)
//! ```
//!
//! Methods take one event each and then bring the process to where it should be (`advance`); none of them waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lockstep_common::{Digest, chain};
use lockstep_rpc::agent_command::Body as Command;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{AgentCommand, Alive, Assignment, Empty, ExitCause, Exited, Failed, ProcessMessage, Report, Save};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::child::{Child, Exit};
use crate::event::{ConnectionId, ProcessKey};
use crate::output::LogWriter;
use crate::spool::Spool;

/// SIGTERM, as an exit code.
const TERMINATED: i32 = 128 + 15;

/// Why a process was not started.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) reason: String,
    /// The reason may pass.
    pub(crate) transient: bool,
}

impl NotStarted {
    /// A reason that would come again.
    pub(crate) fn for_good(reason: String) -> Self {
        Self { reason, transient: false }
    }
}

/// See the module.
pub(crate) struct Process {
    key: ProcessKey,
    /// What it should do; `None` for a process of an earlier agent.
    assignment: Option<Assignment>,
    /// The coordinator wants it. True until the coordinator has said otherwise.
    desired: bool,
    life: Life,
    /// Why its agent has stopped it, if it has.
    stopped: ExitCause,
    /// How it gets on, as it said last.
    progress: Progress,
    /// What it was about when it was ended because it did not get on.
    hung: String,
    connection: Option<Connection>,
    has_joined: bool,
    has_finished: bool,
    spool: Spool,
    /// What the spool did not take, in order. At most one message of the process, which waits, and its end.
    held: VecDeque<Held>,
}

enum Life {
    /// For the program of this key; with the log, if the build has not borrowed it.
    Waiting {
        program: Digest,
        log: Option<LogWriter>,
    },
    Alive(Child),
    Dying {
        _child: Child,
        exit: Exit,
        settled: bool,
    },
    Gone,
}

/// How a process gets on.
struct Progress {
    said: Alive,
    /// When it last said something new, or that it waits for others.
    since: Instant,
}

struct Connection {
    id: ConnectionId,
    commands: mpsc::Sender<AgentCommand>,
    started: bool,
    drained: bool,
    /// What it knows of the run's last checkpoint.
    save: Save,
}

struct Held {
    message: ProcessMessage,
    accepted: Option<oneshot::Sender<()>>,
}

impl Process {
    /// A process that was just started, or cannot be: then it gives up at once.
    pub(crate) fn started(
        key: ProcessKey,
        assignment: Assignment,
        child: Result<Child, NotStarted>,
        spool: Spool,
    ) -> Self {
        let mut process = Self::new(key, Some(assignment), Life::Gone, spool);
        process.begin(child);
        process
    }

    /// A process that will be started when the `program` of its job is built.
    pub(crate) fn waiting(
        key: ProcessKey,
        assignment: Assignment,
        spool: Spool,
        program: Digest,
        log: Option<LogWriter>,
    ) -> Self {
        Self::new(key, Some(assignment), Life::Waiting { program, log }, spool)
    }

    /// The program that it waits for.
    pub(crate) fn waits_for(&self) -> Option<&Digest> {
        match &self.life {
            Life::Waiting { program, .. } => Some(program),
            _ => None,
        }
    }

    /// Its log, if it waits and has it.
    pub(crate) fn take_log(&mut self) -> Option<LogWriter> {
        match &mut self.life {
            Life::Waiting { log, .. } => log.take(),
            _ => None,
        }
    }

    /// What it waited for is there, and it was started; or cannot be, and it gives up.
    pub(crate) fn begin(&mut self, child: Result<Child, NotStarted>) {
        match child {
            Ok(child) => {
                self.life = Life::Alive(child);
                self.gets_on();
            }
            Err(NotStarted { reason, transient }) => {
                warn!("{}: {reason}", self.key);
                self.life = Life::Gone;
                self.record(Body::Failed(Failed { reason, transient }), None);
            }
        }
        self.advance();
    }

    /// What the coordinator wants of it.
    pub(crate) fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// A process of an earlier agent, of which only the spool is left; `end`: what to say of it, if nothing was said.
    pub(crate) fn left_over(key: ProcessKey, spool: Spool, end: Option<Exited>) -> Self {
        let mut process = Self::new(key, None, Life::Gone, spool);
        if let Some(end) = end {
            process.record(Body::Exited(end), None);
        }
        process
    }

    fn new(key: ProcessKey, assignment: Option<Assignment>, life: Life, spool: Spool) -> Self {
        Self {
            key,
            assignment,
            desired: true,
            life,
            stopped: ExitCause::Unnamed,
            progress: Progress { said: Alive::default(), since: Instant::now() },
            hung: String::new(),
            connection: None,
            has_joined: false,
            has_finished: false,
            spool,
            held: VecDeque::new(),
        }
    }

    /// The coordinator wants it, with this assignment.
    pub(crate) fn want(&mut self, assignment: Assignment) {
        self.desired = true;
        if self.has_joined
            && let Some(had) = &self.assignment
            && had.store != assignment.store
        {
            warn!(
                "{} ends: its checkpoints go to `{}`, and the store is `{}` now",
                self.key, had.store, assignment.store
            );
            self.stop(ExitCause::Dismissed);
        }
        self.assignment = Some(assignment);
        self.advance();
    }

    /// The coordinator does not want it, or not any more.
    pub(crate) fn dismiss(&mut self) {
        if self.desired {
            self.desired = false;
            info!("{} is no longer desired", self.key);
        }
        self.advance();
    }

    /// Ends it, if it lives.
    pub(crate) fn stop(&mut self, cause: ExitCause) {
        match &self.life {
            Life::Alive(child) => {
                child.stop();
                self.stopped = cause;
            }
            Life::Waiting { .. } => {
                self.life = Life::Gone;
                self.record_exit(TERMINATED, String::new(), cause);
            }
            Life::Dying { .. } | Life::Gone => {}
        }
    }

    /// It connected. Refused (the connection closes) if it has a connection, or should not be there.
    pub(crate) fn join(&mut self, id: ConnectionId, commands: mpsc::Sender<AgentCommand>) {
        let (Some(assignment), None, Life::Alive(_) | Life::Dying { .. }) =
            (&self.assignment, &self.connection, &self.life)
        else {
            return warn!("{} connected, but is not expected to", self.key);
        };
        let assign = Assignment { peers: Vec::new(), ..assignment.clone() };
        // The channel is new: there is room.
        commands.try_send(AgentCommand { body: Some(Command::Assign(assign)) }).ok();
        self.connection = Some(Connection { id, commands, started: false, drained: false, save: Save::default() });
        self.has_joined = true;
        self.gets_on();
        self.advance();
    }

    /// It said something. What only the agent may say is dropped, and the connection with it.
    pub(crate) fn say(&mut self, id: ConnectionId, message: ProcessMessage, accepted: oneshot::Sender<()>) {
        if self.connection.as_ref().is_none_or(|connection| connection.id != id) {
            return;
        }
        match message.body {
            None | Some(Body::Hello(_) | Body::Exited(_)) => {
                warn!("{} said what a process does not say", self.key);
            }
            Some(Body::Alive(said)) => {
                if said.waits || said != self.progress.said {
                    self.gets_on();
                }
                self.progress.said = said;
                accepted.send(()).ok();
            }
            Some(body) => {
                self.has_finished |= matches!(body, Body::Finished(_));
                self.record(body, Some(accepted));
                self.advance();
            }
        }
    }

    /// It gets on, or nobody has looked.
    pub(crate) fn gets_on(&mut self) {
        self.progress.since = Instant::now();
    }

    /// Ends it if it hangs: it made no progress for `limit`, and it is not for others that it waits.
    pub(crate) fn end_if_hung(&mut self, limit: Duration) {
        let Life::Alive(child) = &self.life else { return };
        if !self.hung.is_empty() || self.progress.since.elapsed() < limit {
            return;
        }
        let Alive { phase, step, .. } = &self.progress.said;
        let phase = if phase.is_empty() { "starting" } else { phase };
        self.hung = format!(
            "it made no progress for {} s (`progress_limit_s`) while {phase}, after step {step}; its last output says where it stood",
            limit.as_secs()
        );
        warn!("{} hangs: {}", self.key, self.hung);
        child.end_hung();
    }

    /// Its connection ended.
    pub(crate) fn hang_up(&mut self, id: ConnectionId) {
        if self.connection.take_if(|connection| connection.id == id).is_some()
            && let Life::Alive(child) = &self.life
        {
            // It has nothing more to say, so it should end.
            child.retire();
        }
        self.advance();
    }

    /// It ended.
    pub(crate) fn end(&mut self, exit: Exit) {
        match std::mem::replace(&mut self.life, Life::Gone) {
            Life::Alive(child) => self.life = Life::Dying { _child: child, exit, settled: false },
            before => self.life = before,
        }
        self.advance();
    }

    /// It ended a while ago: nothing of it is still on the way.
    pub(crate) fn settle(&mut self) {
        if let Life::Dying { settled, .. } = &mut self.life {
            *settled = true;
        }
        self.advance();
    }

    /// The coordinator has everything up to `sequence`.
    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        if let Err(error) = self.spool.acknowledge(sequence) {
            warn!("{}: {error}: {}", self.key, source(&error));
        }
        self.advance();
    }

    /// Tries again to spool what the disk did not take.
    pub(crate) fn retry(&mut self) {
        self.spool_held();
        self.advance();
    }

    /// The next report to send.
    pub(crate) fn next_report(&mut self) -> Option<Report> {
        match self.spool.next_unsent() {
            Ok(report) => report,
            Err(lost) => {
                // The numbering has no gaps, so something must be said in its place; the run cannot go on without it.
                let lost = chain(&lost);
                error!("{}: {lost}", self.key);
                let reason = format!("its agent lost a report: {lost}");
                let failed = Failed { reason, transient: false };
                Some(self.spool.skip(ProcessMessage { body: Some(Body::Failed(failed)) }))
            }
        }
    }

    /// Sends everything that is not acknowledged again.
    pub(crate) fn rewind(&mut self) {
        self.spool.rewind();
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.spool.has_unsent()
    }

    /// Whether something waits for the disk.
    pub(crate) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether its output may still grow.
    /// Whether the coordinator wants it, as far as it has said.
    pub(crate) fn is_desired(&self) -> bool {
        self.desired
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Alive(_) | Life::Waiting { .. })
    }

    /// Whether it has ended and its end is spooled.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.life, Life::Gone) && self.held.is_empty()
    }

    /// Whether the coordinator has everything that is spooled.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.spool.is_acknowledged()
    }

    /// The device that it uses.
    pub(crate) fn device(&self) -> Option<&str> {
        Some(self.assignment.as_ref()?.device.as_str())
    }

    /// Whether nothing more is to be done for it.
    pub(crate) fn is_over(&self) -> bool {
        !self.desired && self.is_gone() && self.is_acknowledged()
    }

    /// Deletes what is kept of it, but for its log.
    pub(crate) fn remove(self) {
        if let Err(error) = self.spool.remove() {
            warn!("{}: {error}: {}", self.key, source(&error));
        }
    }

    /// Brings it to where it should be; safe to call at any time.
    fn advance(&mut self) {
        let may_go = self.has_finished && self.held.is_empty() && (self.spool.is_acknowledged() || !self.desired);
        if let Some(connection) = &mut self.connection {
            if let Some(assignment) = self.assignment.as_ref().filter(|assignment| !assignment.peers.is_empty())
                && !connection.started
            {
                connection.started = connection.tell(Command::Start(assignment.clone()));
            }
            let save = self.assignment.as_ref().and_then(|assignment| assignment.save).unwrap_or_default();
            if connection.started && save != connection.save && connection.tell(Command::Save(save)) {
                connection.save = save;
            }
            if may_go && !connection.drained {
                connection.drained = connection.tell(Command::Drained(Empty {}));
                if let Life::Alive(child) = &self.life {
                    child.retire();
                }
            }
        }
        if !self.desired && !self.has_finished {
            self.stop(ExitCause::Dismissed);
        }
        if let Life::Dying { settled, .. } = &self.life
            && self.connection.is_none()
            && (*settled || self.has_joined)
            && let Life::Dying { exit, .. } = std::mem::replace(&mut self.life, Life::Gone)
        {
            self.record_exit(exit.code, exit.output, self.stopped);
        }
    }

    fn record_exit(&mut self, code: i32, output: String, cause: ExitCause) {
        let hung = std::mem::take(&mut self.hung);
        self.record(Body::Exited(Exited { code, output, cause: cause.into(), hung }), None);
    }

    fn record(&mut self, body: Body, accepted: Option<oneshot::Sender<()>>) {
        let waits = self.is_held();
        self.held.push_back(Held { message: ProcessMessage { body: Some(body) }, accepted });
        if !waits {
            self.spool_held();
        }
    }

    fn spool_held(&mut self) {
        while let Some(held) = self.held.pop_front() {
            if let Err(error) = self.spool.append(held.message.clone()) {
                warn!("{}: {error}: {}; trying again", self.key, source(&error));
                return self.held.push_front(held);
            }
            if let Some(accepted) = held.accepted {
                // Its connection may have ended meanwhile.
                accepted.send(()).ok();
            }
        }
    }
}

impl Connection {
    /// Whether the command is on its way. A process that takes none is about to hang up.
    fn tell(&self, command: Command) -> bool {
        self.commands.try_send(AgentCommand { body: Some(command) }).is_ok()
    }
}

fn source(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests;
