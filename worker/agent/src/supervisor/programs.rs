//! Starts the program of a process: the job's own, which is built first, or the agent's rank command.

use lockstep_common::job::JobSpec;
use lockstep_common::{canonical, numerics};
use lockstep_host::transient;
use lockstep_rpc::Assignment;

use super::Supervisor;
use crate::child::LogWriter;
use crate::child::ProcessKey;
use crate::child::{Child, Start};
use crate::process::{NotStarted, Process};
use crate::programs::{BuildSpec, Built, Ended};
use crate::spool::Spool;

impl Supervisor {
    /// A process whose program must be built first. Starts the build, unless it is already running for another process.
    pub(super) fn wait(
        &mut self,
        key: &ProcessKey,
        assignment: Assignment,
        spool: Spool,
        spec: BuildSpec,
        mut log: LogWriter,
    ) -> Process {
        let program = spec.key;
        if self.programs.is_running(&program) {
            log.write(b"[its program is being built; the output is in the log of another process of this node]\n");
            return Process::waiting(key.clone(), assignment, spool, program, Some(log));
        }
        self.programs.start(spec, key.clone(), log, self.events.clone(), &self.children);
        Process::waiting(key.clone(), assignment, spool, program, None)
    }

    /// Starts the processes that waited for the program, or fails them with the error of the build.
    pub(super) fn built(&mut self, mut ended: Ended) {
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
                _ => Err(NotStarted::for_good("its agent lost its log or its job".to_owned())),
            };
            self.with(&key, |process| process.begin(child));
        }
    }

    /// Starts the program of a process: `built`, or the agent's rank command if the job has no program.
    pub(super) fn spawn(
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
}
