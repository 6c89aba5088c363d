//! Programs of users' own, built once for each code and kept.
//!
//! ```text
//! DIR/<key>/tree/        the work tree of the run
//! DIR/<key>/program      what was built in it
//! DIR/<key>/built.json   the facts of it; there is one only if all is whole
//! DIR/<key>.lock         who uses it: see [`cache`]
//! DIR/repositories.git   commits that were fetched from remotes
//! DIR/target/            cargo's, of all of them, so that what they depend on is compiled once
//! ```
//!
//! Agents of one machine may share a directory, and none deletes what a process of another one runs in. `key` is a digest of the work tree, of the command and of the variables that a
//! build depends on. Which builds are under way is known here; how one is made, in [`build`].

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

/// The programs of this node.
#[derive(Debug)]
pub(crate) struct Programs {
    builder: Builder,
    keep: usize,
    running: BTreeMap<Digest, (u64, DropGuard)>,
    started: u64,
}

impl Programs {
    /// Those of an agent with these options; builds are given the variables `given`.
    pub(crate) fn new(options: &AgentOptions, given: Environment) -> Self {
        let (programs, join) = (options.programs_dir.clone(), options.join.clone());
        let builder = Builder { programs, join, remotes: options.remotes.clone(), given };
        Self { builder, keep: options.programs.get(), running: BTreeMap::new(), started: 0 }
    }

    /// The program, if it was built before.
    pub(crate) fn ready(&self, spec: &BuildSpec) -> Option<Built> {
        let entry = CacheEntry::new(&self.builder.programs, spec);
        let built = entry.built()?;
        entry.touch();
        Some(built)
    }

    /// Whether it is being built.
    pub(crate) fn is_running(&self, key: &Digest) -> bool {
        self.running.contains_key(key)
    }

    /// Builds it; what that says goes to `log`, which is `owner`'s, and comes back with its end.
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
            // The owner takes events for as long as it has processes.
            events.send(Event::Built(Ended { key, number, result, owner, log })).await.ok();
        });
    }

    /// Whether the end is that of the build under way, which then is none any more.
    pub(crate) fn end(&mut self, ended: &Ended) -> bool {
        let is_own = self.running.get(&ended.key).is_some_and(|(number, _)| *number == ended.number);
        if is_own {
            self.running.remove(&ended.key);
        }
        is_own
    }

    /// Stops the builds that nobody waits for.
    pub(crate) fn stop_unless(&mut self, wanted: impl Fn(&Digest) -> bool) {
        self.running.retain(|key, _| wanted(key));
    }
}
