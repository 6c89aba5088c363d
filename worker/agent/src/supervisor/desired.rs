//! What the coordinator desires: who goes, who stays, and who is started once there is a device and a spool for it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Instant;

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
                    Err(error) => warn!("the coordinator desires what cannot be: {error}"),
                    Ok(key) => drop(wanted.insert(key, (device, save.unwrap_or_default()))),
                }
            }
            generations.insert((run, generation));
        }
        self.assignments.retain(|of, _| generations.contains(of));
        self.fetched.retain(|of| generations.contains(of));
        // First who goes: the next ones wait for their devices.
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

    /// The coordinator brings what was asked for.
    pub(super) fn assigned(&mut self, assignment: Assignment) {
        let of = (assignment.run.clone(), assignment.generation);
        // Of a generation that is desired no longer nothing is kept.
        if self.fetched.contains(&of) {
            self.assignments.insert(of, assignment);
            self.start_postponed();
        }
    }

    /// All processes of a generation are ready.
    pub(super) fn met(&mut self, peers: &Peers) {
        let theirs = |key: &ProcessKey| key.run.as_str() == peers.run && key.generation == peers.generation;
        let own = self.processes.iter_mut().filter(|(key, _)| theirs(key));
        own.for_each(|(_, process)| process.meet(&peers.addresses));
    }

    /// Starts a process, once its generation's assignment is there, which is asked for.
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
            warn!("cannot delete old logs: {error}");
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
        self.postponed.insert(key, assignment.device);
    }
}
