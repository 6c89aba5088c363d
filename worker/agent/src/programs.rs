//! Users' programs, built once for each version of their code, and kept.
//!
//! ```text
//! DIR/<key>/tree/        the work tree of the run
//! DIR/<key>/program      the program that was built in it
//! DIR/<key>/built.json   facts of the build; exists only if the entry is complete
//! DIR/<key>.lock         lock file of builders and users: see `cache`
//! DIR/repositories.git   commits that were fetched from remotes
//! DIR/target/            cargo's target directory of all programs, so that dependencies are compiled once
//! ```
//!
//! Agents on one machine may share `DIR`; none deletes an entry that a process of another agent uses. `key` is a digest of the work
//! tree, the build command and the variables that a build depends on. This module knows the running builds; [`build`] runs one.

use std::collections::BTreeMap;

use lockstep_common::Digest;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::build::Builder;
use self::cache::{CacheEntry, prune};
use crate::child::LogWriter;
use crate::child::ProcessKey;
use crate::environment::Environment;
use crate::event::Event;
use crate::options::AgentOptions;

mod build;
mod cache;
pub(crate) mod spec;

pub(crate) use spec::{BuildSpec, Built, Ended};

/// The programs of this node: those that are built, and the running builds.
#[derive(Debug)]
pub(crate) struct Programs {
    builder: Builder,
    keep: usize,
    running: BTreeMap<Digest, (u64, DropGuard)>,
    started: u64,
}

impl Programs {
    /// The programs of an agent with these options. Builds get the variables `given`.
    pub(crate) fn new(options: &AgentOptions, given: Environment) -> Self {
        let (programs, join) = (options.programs_dir.clone(), options.join.clone());
        let builder = Builder { programs, join, remotes: options.remotes.clone(), given };
        Self { builder, keep: options.programs.get(), running: BTreeMap::new(), started: 0 }
    }

    /// The program, if it is built; marks it as used now.
    pub(crate) fn ready(&self, spec: &BuildSpec) -> Option<Built> {
        let entry = CacheEntry::new(&self.builder.programs, spec);
        let built = entry.built()?;
        entry.touch();
        Some(built)
    }

    /// Whether a build of the program `key` is running.
    pub(crate) fn is_running(&self, key: &Digest) -> bool {
        self.running.contains_key(key)
    }

    /// Starts a build. Its output goes to `log`, the log of the process `owner`, which comes back with [`Event::Built`].
    pub(crate) fn start(
        &mut self,
        spec: BuildSpec,
        owner: ProcessKey,
        log: LogWriter,
        events: mpsc::Sender<Event>,
        tasks: &TaskTracker,
    ) {
        let (stop, key, number) = (CancellationToken::new(), spec.key, self.started);
        self.started += 1;
        self.running.insert(key, (number, stop.clone().drop_guard()));
        info!("building `{}` of commit {}", spec.program.bin, spec.commit);
        let (builder, keep) = (self.builder.clone(), self.keep);
        tasks.spawn(async move {
            let (log, result) = builder.build(&spec, log, stop).await;
            match &result {
                Ok(_) => prune(&builder.programs, keep),
                Err(reason) => warn!("cannot build `{}`: {reason}", spec.program.bin),
            }
            // The supervisor takes events as long as it has processes.
            events.send(Event::Built(Ended { key, number, result, owner, log })).await.ok();
        });
    }

    /// Removes a running build that has ended. False if `ended` is of an earlier build of the same program.
    pub(crate) fn end(&mut self, ended: &Ended) -> bool {
        let is_own = self.running.get(&ended.key).is_some_and(|(number, _)| *number == ended.number);
        if is_own {
            self.running.remove(&ended.key);
        }
        is_own
    }

    /// Stops all builds but the `wanted` ones.
    pub(crate) fn stop_unless(&mut self, wanted: impl Fn(&Digest) -> bool) {
        self.running.retain(|key, _| wanted(key));
    }
}
