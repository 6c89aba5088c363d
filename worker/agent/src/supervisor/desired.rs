//! Applies the desired state: stops processes, keeps them, and starts new ones as soon as they have a device and a spool.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Instant;

use lockstep_common::chain;
use lockstep_common::job::JobSpec;
use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{
    AgentMessage, Assignment, AssignmentRequest, Desired, DesiredProcess, DesiredRun, Failed, Peers, ProcessMessage,
};
use tracing::{info, warn};

use super::{ANSWER_CAPACITY, Supervisor};
use crate::child::ProcessKey;
use crate::child::left_over::process_dir;
use crate::process::{NotStarted, Process};
use crate::programs::BuildSpec;
use crate::spool::Spool;

impl Supervisor {
    pub(super) fn desire(&mut self, desired: Desired) {
        self.postponed.clear();
        let mut wanted = BTreeMap::new();
        let mut generations = BTreeSet::new();
        for DesiredRun { run, generation, processes, save } in desired.runs {
            for DesiredProcess { process, device } in processes {
                match ProcessKey::new(&run, generation, process) {
                    Err(error) => warn!("ignoring a desired process of generation {generation}: {error}"),
                    Ok(key) => drop(wanted.insert(key, (device, save.unwrap_or_default()))),
                }
            }
            generations.insert((run, generation));
        }
        self.assignments.retain(|of, _| generations.contains(of));
        self.fetched.retain(|of| generations.contains(of));
        // Stop first: new processes may wait for the devices.
        let goes = |key: &ProcessKey| !wanted.contains_key(key);
        self.processes.iter_mut().filter(|(key, _)| goes(key)).for_each(|(_, process)| process.dismiss());
        self.unspooled.retain(|key, _| !goes(key));
        for (key, (device, save)) in wanted {
            match self.processes.entry(key.clone()) {
                Entry::Occupied(process) => process.into_mut().want(save),
                Entry::Vacant(_) if self.leaving => {}
                Entry::Vacant(_) => self.start_assigned(key, device),
            }
        }
        let processes = &self.processes;
        self.programs.stop_unless(|key| processes.values().any(|process| process.waits_for() == Some(key)));
    }

    pub(super) fn start_postponed(&mut self) {
        for (key, device) in std::mem::take(&mut self.postponed) {
            self.start_assigned(key, device);
        }
    }

    /// Takes a requested assignment, and starts the processes that wait for it.
    pub(super) fn assigned(&mut self, assignment: Assignment) {
        let of = (assignment.run.clone(), assignment.generation);
        // Ignored if the generation is no longer desired.
        if self.fetched.contains(&of) {
            self.assignments.insert(of, assignment);
            self.start_postponed();
        }
    }

    /// All processes of a generation are ready: passes their addresses on to those of this node.
    pub(super) fn met(&mut self, peers: &Peers) {
        let theirs = |key: &ProcessKey| key.run.as_str() == peers.run && key.generation == peers.generation;
        let own = self.processes.iter_mut().filter(|(key, _)| theirs(key));
        own.for_each(|(_, process)| process.meet(&peers.addresses));
    }

    /// Starts a process if the assignment of its generation is here; otherwise requests the assignment and postpones the start.
    fn start_assigned(&mut self, key: ProcessKey, device: String) {
        let of = (key.run.to_string(), key.generation);
        if let Some(assignment) = self.assignments.get(&of) {
            let assignment = Assignment { process: key.process, device, ..assignment.clone() };
            return self.start(key, assignment);
        }
        if !self.fetched.contains(&of) {
            let (run, generation) = of.clone();
            let body = Some(Say::Fetch(AssignmentRequest { run, generation }));
            self.answers.push_back(AgentMessage { body });
            self.fetched.insert(of);
        }
        self.postponed.insert(key, device);
    }

    /// The process that holds the device of `assignment`, if the device has no room: by preference one that is no longer desired.
    /// A device has room for as many processes as it was offered times.
    fn holder(&self, assignment: &Assignment) -> Option<&ProcessKey> {
        let room = self.devices.iter().filter(|device| **device == assignment.device).count();
        let here = |process: &Process| process.is_alive() && process.device() == Some(&assignment.device);
        let holders: Vec<_> = self.processes.iter().filter(|(_, process)| here(process)).collect();
        // The process itself fails on a device that is not offered.
        if holders.len() < room.max(1) {
            return None;
        }
        let left = holders.iter().find(|(_, process)| !process.is_desired());
        left.or(holders.last()).map(|(key, _)| *key)
    }

    /// Starts a process if its device has room, else postpones the start. The spool is created first: if the agent is killed in
    /// between, the next one finds the spool and reports that the process ended.
    fn start(&mut self, key: ProcessKey, assignment: Assignment) {
        if let Some(holder) = self.holder(&assignment) {
            if !self.waiting_for_device.contains(&key) {
                info!("{key} waits: {holder} still holds `{}`", assignment.device);
                self.waiting_for_device.insert(key.clone());
            }
            self.postponed.insert(key, assignment.device);
            return;
        }
        self.waiting_for_device.remove(&key);
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
            warn!("cannot delete old logs of processes: {error}");
        }
        let job = JobSpec::from_canonical(&assignment.job);
        let job = job.map_err(|error| format!("its agent cannot read the job: {error}"));
        let spec = job.and_then(|job| Ok((BuildSpec::of(&assignment, &job)?, job)));
        let process = match spec {
            Err(reason) => Process::started(key.clone(), assignment, Err(NotStarted::for_good(reason)), spool),
            Ok((Some(spec), job)) => match self.programs.ready(&spec) {
                Some(built) => {
                    Process::started(key.clone(), assignment, self.spawn(&key, &job, Some(&built), log), spool)
                }
                None => self.wait(&key, assignment, spool, spec, log),
            },
            Ok((None, job)) => Process::started(key.clone(), assignment, self.spawn(&key, &job, None, log), spool),
        };
        self.processes.insert(key, process);
    }

    /// Postpones the start of a process whose spool or log cannot be created. After `progress_limit` without success the process is
    /// reported as failed for a transient reason, so that the coordinator retries it elsewhere or ends the run with this reason.
    fn not_spooled(&mut self, key: ProcessKey, assignment: Assignment, error: &io::Error) {
        let error = chain(error);
        warn!("cannot start {key} yet: {error}; retrying every second");
        let now = Instant::now();
        let since = *self.unspooled.entry(key.clone()).or_insert(now);
        let is_over = |limit| now.duration_since(since) > limit && self.answers.len() < ANSWER_CAPACITY;
        if self.options.progress_limit.is_some_and(is_over) {
            self.unspooled.insert(key.clone(), now);
            let reason =
                format!("node `{}` cannot start it: its data directory cannot be written: {error}", self.options.node);
            let body = Some(Body::Failed(Failed { reason, transient: true }));
            // Number 1: without a spool this is the first report of the process.
            let report = key.report(1, ProcessMessage { body });
            self.answers.push_back(AgentMessage { body: Some(Say::Report(report)) });
        }
        self.postponed.insert(key, assignment.device);
    }
}
