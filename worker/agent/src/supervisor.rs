//! The owner of all state: every process, what waits to be sent, and where it is sent to.
//!
//! Takes one [`Event`] at a time and never waits in the middle of one. It writes to the spool itself: an append goes to
//! the page cache, and heartbeats have a task of their own, so a slow disk delays reports and nothing else.

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

/// Answers about logs that wait for the stream; a coordinator that asks faster than it takes answers is not answered.
const ANSWER_CAPACITY: usize = 64;

/// See the module.
pub(crate) struct Supervisor {
    options: AgentOptions,
    socket: OsString,
    spool_dir: PathBuf,
    logs: Logs,
    monitor: Option<Monitor>,
    events: mpsc::Sender<Event>,
    children: TaskTracker,
    programs: Programs,
    /// What rank processes and builds are given of this process's variables.
    given: Environment,
    processes: BTreeMap<ProcessKey, Process>,
    /// Devices that are offered, each as often as processes fit on it.
    devices: Vec<String>,
    /// Desired processes, with their devices, whose assignment has not come, for which the disk had no room yet, or whose device
    /// another one still holds.
    postponed: BTreeMap<ProcessKey, String>,
    /// Assignments of desired generations, by run and generation.
    assignments: BTreeMap<(String, u64), Assignment>,
    /// Those that the coordinator was asked for on this stream.
    fetched: BTreeSet<(String, u64)>,
    /// Those that wait for a device, which was said.
    waiting_for_device: BTreeSet<ProcessKey>,
    /// Those for which the disk takes no spool, and since when, or when that was last told.
    unspooled: BTreeMap<ProcessKey, Instant>,
    outbox: Option<mpsc::Sender<AgentMessage>>,
    answers: VecDeque<AgentMessage>,
    /// Whose report was sent last: the others come first.
    served: Option<ProcessKey>,
    leaving: bool,
    refused: Option<String>,
}

impl Supervisor {
    /// A supervisor without processes, but for what earlier agents left in the spool.
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

    /// Takes one event.
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
            // Of an unknown process: dropping the commands closes the connection.
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

    /// Ends processes that hang. `stood_still`: so has this agent, and what they said waits to be read.
    pub(crate) fn end_hung(&mut self, stood_still: bool) {
        let Some(limit) = self.options.progress_limit else { return };
        for process in self.processes.values_mut() {
            if stood_still {
                process.restart_limit();
            }
            process.end_if_hung(limit);
        }
    }

    /// Stops every process and starts none any more.
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

    /// Why the coordinator did not take this node.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Whether there are processes whose reports are not all told, of earlier agents too.
    pub(crate) fn has_reports(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Whether every process has ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes.values().all(Process::is_gone)
    }

    /// Whether nobody can be told more than they know.
    pub(crate) fn is_told(&self) -> bool {
        self.outbox.is_none() || self.processes.values().all(Process::is_acknowledged)
    }

    /// Whether something waits for the disk.
    pub(crate) fn waits_for_disk(&self) -> bool {
        !self.postponed.is_empty() || self.processes.values().any(Process::is_held)
    }

    /// Tries again what waits for the disk.
    pub(crate) fn retry(&mut self) {
        self.processes.values_mut().filter(|process| process.is_held()).for_each(Process::retry);
        self.start_postponed();
    }

    /// Waits for the tasks of all processes.
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
