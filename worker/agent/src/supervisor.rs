//! The owner of all state: every process, what waits to be sent, and where it is sent to.
//!
//! Takes one [`Event`] at a time and never waits in the middle of one. It writes to the spool itself: an append goes to
//! the page cache, and heartbeats have a task of their own, so a slow disk delays reports and nothing else.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::time::Instant;

use lockstep_common::job::JobSpec;
use lockstep_common::{canonical, numerics};
use lockstep_host::access::make_private_dirs;
use lockstep_host::transient;
use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{AgentMessage, Assignment, Desired, Empty, ExitCause, Failed, LogReply, LogRequest, ProcessMessage};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::child::{Child, Start};
use crate::environment::Environment;
use crate::error::AgentError;
use crate::event::{Event, ProcessKey};
use crate::left_over::{left_over, process_dir};
use crate::nvml::Monitor;
use crate::options::AgentOptions;
use crate::output::{LogWriter, Logs};
use crate::process::{NotStarted, Process};
use crate::programs::{Built, Ended, Order, Programs};
use crate::spool::Spool;

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
    /// Desired processes for which the disk had no room yet, or whose device another one still holds.
    postponed: BTreeMap<ProcessKey, Assignment>,
    /// Those that wait for a device, which was said.
    held: BTreeSet<ProcessKey>,
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
            held: BTreeSet::new(),
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
            Event::Attached { outbox } => {
                self.outbox = Some(outbox);
                if self.leaving {
                    self.say_leaving();
                }
                self.processes.values_mut().for_each(Process::rewind);
            }
            Event::Detached => {
                self.outbox = None;
                self.answers.clear();
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
                Some(Told::Welcome(_)) | None => {}
            },
            // Of an unknown process: dropping the commands closes the connection.
            Event::Joined { key, connection, commands } => {
                self.with(&key, |process| process.join(connection, commands));
            }
            Event::Said { key, connection, mut message, accepted } => {
                if let Some(process) = self.processes.get_mut(&key) {
                    if let (Some(monitor), Some(device), Some(Body::Block(block))) =
                        (&self.monitor, process.device(), &mut message.body)
                    {
                        monitor.complete(device, block);
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
            Event::Settled { key } => self.with(&key, Process::settle),
            Event::Built(ended) => self.built(ended),
        }
    }

    /// Sends what can be sent without waiting, and forgets what is over.
    pub(crate) fn pump(&mut self) {
        if let Some(outbox) = self.outbox.clone() {
            while let Ok(permit) = outbox.try_reserve() {
                let Some(message) = self.next_message() else { break };
                permit.send(message);
            }
        }
        for (_, process) in self.processes.extract_if(.., |_, process| process.is_over()) {
            process.remove();
        }
    }

    /// Where to wait for room, if something waits to be sent.
    pub(crate) fn blocked_on(&self) -> Option<mpsc::Sender<AgentMessage>> {
        let waits = !self.answers.is_empty() || self.processes.values().any(Process::has_unsent);
        self.outbox.clone().filter(|_| waits)
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

    fn start_postponed(&mut self) {
        for (key, assignment) in std::mem::take(&mut self.postponed) {
            self.start(key, assignment);
        }
    }

    /// Ends processes that hang. `stood_still`: so has this agent, and what they said waits to be read.
    pub(crate) fn end_hung(&mut self, stood_still: bool) {
        let Some(limit) = self.options.progress_limit else { return };
        for process in self.processes.values_mut() {
            if stood_still {
                process.gets_on();
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

    /// Before all else that waits to be sent: nothing more is to be placed here.
    fn say_leaving(&mut self) {
        self.answers.push_front(AgentMessage { body: Some(Say::Leaving(Empty {})) });
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

    fn desire(&mut self, desired: Desired) {
        self.postponed.clear();
        let mut wanted = BTreeMap::new();
        let mut restored = Vec::new();
        for mut assignment in desired.assignments {
            if assignment.restore_as_before {
                assignment.restore.clone_from(&restored);
                assignment.restore_as_before = false;
            } else {
                restored.clone_from(&assignment.restore);
            }
            match ProcessKey::new(&assignment.run, assignment.generation, assignment.process) {
                Err(error) => warn!("the coordinator desires what cannot be: {error}"),
                Ok(key) => drop(wanted.insert(key, assignment)),
            }
        }
        // First who goes: the next ones wait for their devices.
        let goes = |key: &ProcessKey| !wanted.contains_key(key);
        self.processes.iter_mut().filter(|(key, _)| goes(key)).for_each(|(_, process)| process.dismiss());
        self.unspooled.retain(|key, _| !goes(key));
        for (key, assignment) in wanted {
            match self.processes.entry(key.clone()) {
                Entry::Occupied(process) => process.into_mut().want(assignment),
                Entry::Vacant(_) if self.leaving => {}
                Entry::Vacant(_) => self.start(key, assignment),
            }
        }
        let processes = &self.processes;
        self.programs.stop_unless(|key| processes.values().any(|process| process.waits_for() == Some(key)));
    }

    /// Who holds the device of `assignment`: a process that its run has left, and that has not ended yet. A device takes as many
    /// as it was offered for.
    fn holder(&self, assignment: &Assignment) -> Option<&ProcessKey> {
        let room = self.devices.iter().filter(|device| **device == assignment.device).count();
        let here = |process: &Process| process.is_alive() && process.device() == Some(&assignment.device);
        let holders: Vec<_> = self.processes.iter().filter(|(_, process)| here(process)).collect();
        // One that is not offered at all is the process's own to refuse.
        if holders.len() < room.max(1) {
            return None;
        }
        let left = holders.iter().find(|(_, process)| !process.is_desired());
        left.or(holders.last()).map(|(key, _)| *key)
    }

    /// Starts a process, once its device is free. Its spool comes first: an agent that is killed between the two knows that it was
    /// started.
    fn start(&mut self, key: ProcessKey, assignment: Assignment) {
        if let Some(holder) = self.holder(&assignment) {
            if !self.held.contains(&key) {
                info!("{key} waits: {holder} still holds `{}`", assignment.device);
                self.held.insert(key.clone());
            }
            self.postponed.insert(key, assignment);
            return;
        }
        self.held.remove(&key);
        let spool = Spool::create(process_dir(&self.spool_dir, &key), key.clone());
        let opened = spool
            .map_err(io::Error::other)
            .and_then(|spool| Ok((spool.bounded(self.options.spool_bytes), self.logs.create(&key)?)));
        let (spool, log) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.not_spooled(key, assignment, &error),
        };
        self.unspooled.remove(&key);
        let running = self.processes.keys().chain([&key]).collect();
        let (runs, total) = (self.options.log_runs.get(), self.options.log_total_bytes);
        if let Err(error) = self.logs.prune(runs, total, &running) {
            warn!("cannot delete old logs: {error}");
        }
        let job = JobSpec::from_canonical(&assignment.job);
        let job = job.map_err(|error| format!("its agent cannot read the job: {error}"));
        let order = job.and_then(|job| Ok((Order::of(&assignment, &job)?, job)));
        let process = match order {
            Err(reason) => Process::started(key.clone(), assignment, Err(NotStarted::for_good(reason)), spool),
            Ok((Some(order), job)) => match self.programs.ready(&order) {
                Some(built) => {
                    Process::started(key.clone(), assignment, self.spawn(&key, &job, Some(&built), log), spool)
                }
                None => self.wait(&key, assignment, spool, order, log),
            },
            Ok((None, job)) => Process::started(key.clone(), assignment, self.spawn(&key, &job, None, log), spool),
        };
        self.processes.insert(key, process);
    }

    /// The disk takes no spool, which would keep what the process says. It may soon; but its run does not wait here for ever: after
    /// the limit of progress the coordinator is told, and it tries elsewhere, or ends the run in words.
    fn not_spooled(&mut self, key: ProcessKey, assignment: Assignment, error: &io::Error) {
        warn!("cannot start {key} yet: {error}");
        let now = Instant::now();
        let since = *self.unspooled.entry(key.clone()).or_insert(now);
        let is_over = |limit| now.duration_since(since) > limit && self.answers.len() < ANSWER_CAPACITY;
        if self.options.progress_limit.is_some_and(is_over) {
            self.unspooled.insert(key.clone(), now);
            let reason = format!("node `{}` cannot start it: its disk keeps no reports: {error}", self.options.node);
            let body = Some(Body::Failed(Failed { reason, transient: true }));
            // The first thing that is said of it: there is no spool that would number it.
            let report = key.report(1, ProcessMessage { body });
            self.answers.push_back(AgentMessage { body: Some(Say::Report(report)) });
        }
        self.postponed.insert(key, assignment);
    }

    /// A process whose program is to be built first; the build is begun, if it is not under way for another.
    fn wait(
        &mut self,
        key: &ProcessKey,
        assignment: Assignment,
        spool: Spool,
        order: Order,
        mut log: LogWriter,
    ) -> Process {
        let program = order.key;
        if self.programs.is_running(&program) {
            log.write(b"[its program is being built: another process of this node has the log of it]\n");
            return Process::waiting(key.clone(), assignment, spool, program, Some(log));
        }
        self.programs.start(order, key.clone(), log, self.events.clone(), &self.children);
        Process::waiting(key.clone(), assignment, spool, program, None)
    }

    /// Starts whoever waited for the program, or tells them why there is none.
    fn built(&mut self, mut ended: Ended) {
        if !self.programs.end(&ended) {
            return;
        }
        let waiting = self.processes.iter().filter(|(_, process)| process.waits_for() == Some(&ended.key));
        let waiting: Vec<ProcessKey> = waiting.map(|(key, _)| key.clone()).collect();
        let mut borrowed = Some((ended.owner, ended.log));
        for key in waiting {
            let Some(process) = self.processes.get_mut(&key) else { continue };
            let own = borrowed.take_if(|(owner, _)| *owner == key).map(|(_, log)| log);
            let log = own.or_else(|| process.take_log());
            let job = process.assignment().and_then(|assignment| JobSpec::from_canonical(&assignment.job).ok());
            let child = match (&mut ended.result, log, job) {
                (Ok(built), Some(log), Some(job)) => self.spawn(&key, &job, Some(built), log),
                (Err(reason), ..) => {
                    let reason = format!("node `{}` cannot build its program: {reason}", self.options.node);
                    Err(NotStarted::for_good(reason))
                }
                _ => Err(NotStarted::for_good("its log or its job is gone".to_owned())),
            };
            self.with(&key, |process| process.begin(child));
        }
    }

    /// Starts the program of a process: `built`, or what trains where a job brings none.
    fn spawn(
        &self,
        key: &ProcessKey,
        job: &JobSpec,
        built: Option<&Built>,
        log: LogWriter,
    ) -> Result<Child, NotStarted> {
        let mut environment = numerics::environment(job);
        let mut command = self.options.rank_command.clone();
        if let Some(built) = built {
            let facts = canonical::encode(&built.facts);
            environment.push((numerics::PROGRAM.to_owned(), String::from_utf8_lossy(&facts).into_owned()));
            command.program.clone_from(&built.program);
        }
        let child = built.map(|built| built.in_use.try_clone()).transpose().and_then(|input| {
            Child::spawn(Start {
                key,
                command: &command,
                directory: built.map(|built| built.directory.as_path()),
                socket: &self.socket,
                input,
                given: &self.given,
                environment,
                grace: self.options.stop_grace,
                log,
                events: self.events.clone(),
                tasks: &self.children,
            })
        });
        child.map_err(|error| NotStarted {
            reason: format!("node `{}` cannot start `{}`: {error}", self.options.node, command.program.display()),
            transient: transient::is_of(&error),
        })
    }

    fn answer(&mut self, request: &LogRequest) {
        if self.answers.len() == ANSWER_CAPACITY {
            return warn!("a question about a log was dropped: {ANSWER_CAPACITY} answers wait already");
        }
        let reply = match ProcessKey::new(&request.run, request.generation, request.process) {
            Err(_) => LogReply { id: request.id, next_offset: request.offset, end: true, ..Default::default() },
            Ok(key) => self.read_log(&key, request),
        };
        self.answers.push_back(AgentMessage { body: Some(Say::Log(reply)) });
    }

    fn read_log(&self, key: &ProcessKey, request: &LogRequest) -> LogReply {
        let (id, offset) = (request.id, request.offset);
        // Asked before reading: what a process writes while we read is not its end.
        let may_grow = self.postponed.contains_key(key) || self.processes.get(key).is_some_and(Process::is_alive);
        match self.logs.read(key, offset) {
            Ok(chunk) => {
                LogReply { id, text: chunk.text, next_offset: chunk.next_offset, end: chunk.at_end && !may_grow }
            }
            Err(error) => {
                let text = format!("[node `{}` cannot read this log: {error}]\n", self.options.node).into_bytes();
                LogReply { id, text, next_offset: offset, end: true }
            }
        }
    }

    fn next_message(&mut self) -> Option<AgentMessage> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let after = self.served.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = |range: Option<(&ProcessKey, &mut Process)>| {
            range.map(|(key, process)| (key.clone(), process.next_report()))
        };
        let found = next(self.processes.range_mut((after, Bound::Unbounded)).find(|(_, process)| process.has_unsent()));
        let (key, report) = match found {
            Some(found) => found,
            None => next(self.processes.iter_mut().find(|(_, process)| process.has_unsent()))?,
        };
        self.served = Some(key);
        Some(AgentMessage { body: Some(Say::Report(report?)) })
    }
}
