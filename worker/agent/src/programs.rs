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
use std::env;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use lockstep_common::job::{JobSpec, Program};
use lockstep_common::manifest::{CodeVersion, Piece};
use lockstep_common::{Digest, Domain, canonical};
use lockstep_rpc::Assignment;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::build::Builder;
use self::cache::{CacheEntry, prune};
use crate::environment::Environment;
use crate::event::{Event, ProcessKey};
use crate::options::AgentOptions;
use crate::output::LogWriter;

mod build;
mod cache;

/// Variables that another program may come of.
const VARIABLES: [&str; 6] =
    ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "VIRTUAL_ENV", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET"];

/// What is to be built, and from what.
#[derive(Clone, Debug)]
pub(crate) struct BuildSpec {
    /// Names it.
    pub(crate) key: Digest,
    pub(crate) program: Program,
    pub(crate) commit: String,
    pub(crate) remote: Option<String>,
    /// Where in the work tree the job's paths begin.
    pub(crate) directory: String,
    /// The state of the work tree.
    pub(crate) tree: Piece,
    /// The commits below it.
    pub(crate) source: Option<Piece>,
    /// The coordinator's store, if this machine sees it.
    pub(crate) store: PathBuf,
}

/// A program that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) program: PathBuf,
    /// Where it is started.
    pub(crate) directory: PathBuf,
    /// What people want to know of it, for the run's environment.
    pub(crate) facts: BTreeMap<String, String>,
    /// Keeps it from being deleted: for as long as anybody has the file open, so a process gets it too.
    pub(crate) in_use: Arc<File>,
}

impl BuildSpec {
    /// What `assignment` needs built; `None` if it is trained with what Lockstep brings.
    pub(crate) fn of(assignment: &Assignment, job: &JobSpec) -> Result<Option<Self>, String> {
        let Some(program) = job.program.clone() else { return Ok(None) };
        let code = assignment.code.clone().map(CodeVersion::try_from).transpose();
        let code = code.map_err(|_| "its code has a digest that is none".to_owned())?;
        let Some(CodeVersion { commit, remote, directory, tree: Some(tree), source, .. }) = code else {
            return Err(format!("nothing is known to build its program `{}` from: no work tree was kept", program.bin));
        };
        if Path::new(&directory).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("its paths begin in `{directory}`, which is not in its work tree"));
        }
        let variables = VARIABLES.map(|name| (name, env::var(name).ok()));
        let what = (tree.digest, &directory, &program.build, &program.bin, variables);
        let key = Domain::Program.digest(&canonical::encode(&what));
        let store = PathBuf::from(&assignment.store);
        Ok(Some(Self { key, program, commit, remote, directory, tree, source, store }))
    }
}

/// What is told when a build has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) key: Digest,
    number: u64,
    pub(crate) result: Result<Built, String>,
    /// The log that it wrote to, and whose it is.
    pub(crate) owner: ProcessKey,
    pub(crate) log: LogWriter,
}

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
