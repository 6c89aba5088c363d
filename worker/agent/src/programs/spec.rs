//! What is built of a user's program, and what comes of it.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use lockstep_common::job::{JobSpec, Program};
use lockstep_common::manifest::{CodeVersion, Piece};
use lockstep_common::{Digest, Domain, canonical};
use lockstep_rpc::Assignment;

use crate::child::LogWriter;
use crate::child::ProcessKey;

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
    pub(super) number: u64,
    pub(crate) result: Result<Built, String>,
    /// The log that it wrote to, and whose it is.
    pub(crate) owner: ProcessKey,
    pub(crate) log: LogWriter,
}
