//! The owner of all state: processes, unsent messages, and the stream to the coordinator.
//!
//! Takes one [`Event`] at a time and never waits while it handles one. It writes to the spool itself: an append goes to
//! the page cache, and heartbeats have a task of their own, so a slow disk delays only reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use lockstep_host::access::make_private_dirs;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{AgentMessage, Assignment, ExitCause};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::child::Logs;
use crate::child::ProcessKey;
use crate::child::left_over::left_over;
use crate::environment::Environment;
use crate::error::AgentError;
use crate::event::Event;
use crate::machine::nvml::Monitor;
use crate::options::AgentOptions;
use crate::process::Process;
use crate::programs::Programs;

mod desired;
mod outgoing;
mod programs;

/// Upper limit for answers that wait for the stream. Log requests beyond it are dropped.
const ANSWER_CAPACITY: usize = 64;

/// All state of an agent.
pub(crate) struct Supervisor {
    options: AgentOptions,
    socket: OsString,
    spool_dir: PathBuf,
    logs: Logs,
    monitor: Option<Monitor>,
    events: mpsc::Sender<Event>,
    children: TaskTracker,
    programs: Programs,
    /// Environment variables for rank processes and builds.
    given: Environment,
    processes: BTreeMap<ProcessKey, Process>,
    /// Offered devices, each as often as processes fit on it.
    devices: Vec<String>,
    /// Desired processes that cannot start yet, with their devices: the assignment is not here, the disk is full, or another
    /// process holds the device.
    postponed: BTreeMap<ProcessKey, String>,
    /// Assignments of desired generations, by run and generation.
    assignments: BTreeMap<(String, u64), Assignment>,
    /// Run and generation of assignments that were requested on this stream.
    fetched: BTreeSet<(String, u64)>,
    /// Processes that wait for a device, each logged once.
    waiting_for_device: BTreeSet<ProcessKey>,
    /// Processes whose spool or log cannot be created: since when, or when the coordinator was last told.
    unspooled: BTreeMap<ProcessKey, Instant>,
    outbox: Option<mpsc::Sender<AgentMessage>>,
    answers: VecDeque<AgentMessage>,
    /// Process whose report was sent last; the search for the next report begins after it.
    served: Option<ProcessKey>,
    leaving: bool,
    refused: Option<String>,
}

impl Supervisor {
    /// A supervisor whose only processes are those that earlier agents left in the spool.
    pub(crate) fn new(
        options: AgentOptions,
        devices: Vec<String>,
        socket: OsString,
        monitor: Option<Monitor>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, AgentError> {
        let (spool_dir, log_dir) = (options.data_dir.join("spool"), options.data_dir.join("logs"));
        for dir in [&spool_dir, &log_dir] {
            make_private_dirs(dir).map_err(|source| AgentError::Path { path: dir.clone(), source })?;
        }
        let logs = Logs::new(log_dir, options.log_bytes);
        let processes = left_over(&spool_dir, options.spool_bytes)?;
        let given = Environment::of(&options.pass);
        let programs = Programs::new(&options, given.clone());
        Ok(Self {
            options,
            socket,
            spool_dir,
            logs,
            monitor,
            events,
            children: TaskTracker::new(),
            programs,
            given,
            processes,
            devices,
            postponed: BTreeMap::new(),
            assignments: BTreeMap::new(),
            fetched: BTreeSet::new(),
            waiting_for_device: BTreeSet::new(),
            unspooled: BTreeMap::new(),
            outbox: None,
            answers: VecDeque::new(),
            served: None,
            leaving: false,
            refused: None,
        })
    }

    /// Handles one event, without waiting.
    pub(crate) fn handle(&mut self, event: Event) {
        match event {
            Event::Attached { outbox, store } => {
                self.outbox = Some(outbox);
                self.processes.values_mut().for_each(|process| process.store_is(&store));
                self.assignments.values_mut().for_each(|assignment| assignment.store.clone_from(&store));
                if self.leaving {
                    self.say_leaving();
                }
                self.processes.values_mut().for_each(Process::rewind);
            }
            Event::Detached => {
                self.outbox = None;
                self.answers.clear();
                self.fetched.clear();
            }
            Event::Refused(why) => {
                self.refused = Some(why);
                self.leave();
            }
            Event::Told(message) => match message.body {
                Some(Told::Desired(desired)) => self.desire(desired),
                Some(Told::Acknowledged(done)) => {
                    if let Ok(key) = ProcessKey::new(&done.run, done.generation, done.process)
                        && let Some(process) = self.processes.get_mut(&key)
                    {
                        process.acknowledge(done.sequence);
                    }
                }
                Some(Told::Log(request)) => self.answer(&request),
                Some(Told::Assignment(assignment)) => self.assigned(assignment),
                Some(Told::Peers(peers)) => self.met(&peers),
                Some(Told::Welcome(_)) | None => {}
            },
            // If the process is unknown, dropping `commands` closes the connection.
            Event::Joined { key, connection, commands } => {
                self.with(&key, |process| process.join(connection, commands));
            }
            Event::Message { key, connection, message, accepted } => {
                if let Some(process) = self.processes.get_mut(&key) {
                    if let (Some(monitor), Some(Body::Block(block))) = (&self.monitor, &message.body) {
                        process.report_device(connection, monitor, block.known().reach);
                    }
                    process.say(connection, message, accepted);
                }
            }
            Event::HungUp { key, connection } => self.with(&key, |process| process.hang_up(connection)),
            Event::Ended { key, exit } => {
                self.with(&key, |process| process.end(exit));
                // Its device is free.
                self.start_postponed();
            }
            Event::LingerExpired { key } => self.with(&key, Process::linger_expired),
            Event::Built(ended) => self.built(ended),
        }
    }

    /// Stops hung processes. With `stood_still` this agent did not run for a while and has unread messages: limits restart.
    pub(crate) fn end_hung(&mut self, stood_still: bool) {
        let Some(limit) = self.options.progress_limit else { return };
        for process in self.processes.values_mut() {
            if stood_still {
                process.restart_limit();
            }
            process.end_if_hung(limit);
        }
    }

    /// Tells the coordinator that this node leaves, stops all processes, and starts no more.
    pub(crate) fn leave(&mut self) {
        info!("leaving: stopping {} processes", self.processes.values().filter(|process| process.is_alive()).count());
        self.leaving = true;
        self.postponed.clear();
        self.say_leaving();
        self.processes.values_mut().for_each(|process| process.stop(ExitCause::NodeLeaving));
        self.programs.stop_unless(|_| false);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Why the coordinator refused this node, if it did.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Whether any process has a spool, including those of earlier agents.
    pub(crate) fn has_reports(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Whether all processes have ended, and their ends are spooled.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes.values().all(Process::is_gone)
    }

    /// Whether nothing is left to send: all reports are acknowledged, or there is no stream.
    pub(crate) fn is_told(&self) -> bool {
        self.outbox.is_none() || self.processes.values().all(Process::is_acknowledged)
    }

    /// Whether reports or starts wait for the disk; includes starts that wait for other reasons.
    pub(crate) fn waits_for_disk(&self) -> bool {
        !self.postponed.is_empty() || self.processes.values().any(Process::is_held)
    }

    /// Retries what waits for the disk.
    pub(crate) fn retry(&mut self) {
        self.processes.values_mut().filter(|process| process.is_held()).for_each(Process::retry);
        self.start_postponed();
    }

    /// Waits until the tasks of all processes and builds have ended.
    pub(crate) async fn close(self) {
        drop((self.processes, self.monitor));
        self.children.close();
        self.children.wait().await;
    }

    fn with(&mut self, key: &ProcessKey, act: impl FnOnce(&mut Process)) {
        if let Some(process) = self.processes.get_mut(key) {
            act(process);
        }
    }
}
