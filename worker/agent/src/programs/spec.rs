//! The specification of a build of a user's program, and its result.

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

/// Environment variables that may change the result of a build.
const VARIABLES: [&str; 6] =
    ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "VIRTUAL_ENV", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET"];

/// A program to build, and its code.
#[derive(Clone, Debug)]
pub(crate) struct BuildSpec {
    /// Digest of all below that the result depends on; names the cache entry.
    pub(crate) key: Digest,
    pub(crate) program: Program,
    pub(crate) commit: String,
    pub(crate) remote: Option<String>,
    /// Directory in the work tree that the job's paths are relative to.
    pub(crate) directory: String,
    /// Blob with the snapshot of the work tree.
    pub(crate) tree: Piece,
    /// Blob with the packed commits below the snapshot; without it they are fetched from `remote`.
    pub(crate) source: Option<Piece>,
    /// Path of the coordinator's store, which this machine may not see.
    pub(crate) store: PathBuf,
}

/// A program that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) program: PathBuf,
    /// Working directory of its processes.
    pub(crate) directory: PathBuf,
    /// Facts of the build for the run's recorded environment: command, compiler, digest of `Cargo.lock`.
    pub(crate) facts: BTreeMap<String, String>,
    /// Lock file of the cache entry. The entry is not deleted while anybody has it open; a process inherits it.
    pub(crate) in_use: Arc<File>,
}

impl BuildSpec {
    /// The build that `assignment` needs; `None` for a job without `[program]`.
    pub(crate) fn of(assignment: &Assignment, job: &JobSpec) -> Result<Option<Self>, String> {
        let Some(program) = job.program.clone() else { return Ok(None) };
        let code = assignment.code.clone().map(CodeVersion::try_from).transpose();
        let code = code.map_err(|_| "its code version has an invalid digest".to_owned())?;
        let Some(CodeVersion { commit, remote, directory, tree: Some(tree), source, .. }) = code else {
            return Err(format!("cannot build its program `{}`: no work tree was kept with the run", program.bin));
        };
        if Path::new(&directory).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("its job's directory `{directory}` is outside its work tree"));
        }
        let variables = VARIABLES.map(|name| (name, env::var(name).ok()));
        let what = (tree.digest, &directory, &program.build, &program.bin, variables);
        let key = Domain::Program.digest(&canonical::encode(&what));
        let store = PathBuf::from(&assignment.store);
        Ok(Some(Self { key, program, commit, remote, directory, tree, source, store }))
    }
}

/// The end of a build.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) key: Digest,
    pub(super) number: u64,
    pub(crate) result: Result<Built, String>,
    /// The process that `log` belongs to, which got the build's output.
    pub(crate) owner: ProcessKey,
    pub(crate) log: LogWriter,
}
