//! Arguments of the commands on provenance: code, data, lineage, manifests, exports.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Address;
use super::Reader;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the whole tree from the first run: its checkpoints, the runs resumed from them, and so on. An arrow marks the \
requested run or checkpoint. Checkpoints without descendants are only counted.

Example:
  coord lineage 3f9a")]
pub(crate) struct LineageArguments {
    /// Show the tree of this run or checkpoint: id or unique prefix, or the name of a run.
    pub(crate) target: String,
    /// Print every checkpoint, even those without descendants.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Rebuilds all files of the commit and all uncommitted changes: edited, staged, untracked and deleted files, modes, \
symbolic links, submodules and empty directories, without the files that `.gitignore` names. The commit comes from the \
coordinator; a commit above its size limit comes from a clone, or by `git fetch` from the run's remote.

Example:
  coord checkout 7d3k again                prints the directory, and which data files it contains")]
pub(crate) struct CheckoutArguments {
    /// Rebuild the work tree of this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Write the tree to this directory, which must be empty or not exist [default: `run-<id>`].
    pub(crate) directory: Option<PathBuf>,
    /// Search this clone for the commit before those of this directory and of the job; may be given several times.
    #[arg(long = "repository", value_name = "DIR")]
    pub(crate) repositories: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Rebuilds the code like `coord checkout`. Takes the data from the rebuilt tree, or from the coordinator's store (see \
`coord submit --keep-data` and `coord data add`). Then trains the job from its first step to its end, and compares it with \
everything that the run recorded. Exit code 0: all bits are equal; 7: they differ.

Examples:
  coord reproduce 7d3k                     on the coordinator's workers
  coord reproduce 7d3k again --on local    on this machine alone, in `again` and `again.lockstep`")]
pub(crate) struct ReproduceArguments {
    /// Reproduce this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Write the code to this directory, which must be empty or not exist [default: `run-<id>`].
    pub(crate) directory: Option<PathBuf>,
    /// Train on this machine instead of the cluster, with a coordinator and N workers (1 if N is left out) that write to
    /// `DIRECTORY.lockstep`.
    #[arg(long = "on", value_name = "local[=N]", value_parser = on_local)]
    pub(crate) on_local: Option<u32>,
    /// Search this clone for the commit; may be given several times.
    #[arg(long = "repository", value_name = "DIR")]
    pub(crate) repositories: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

fn on_local(text: &str) -> Result<u32, String> {
    let workers = match text.strip_prefix("local") {
        Some("") => Some(1),
        Some(rest) => rest.strip_prefix('=').and_then(|number| number.parse().ok()),
        None => None,
    };
    workers
        .filter(|workers| (1..=64).contains(workers))
        .ok_or_else(|| "expected `local`, or `local=N` with N from 1 to 64".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Store files, and all files of directories, and print their digests like `b3sum`.
    Add(DataAddArguments),
    /// Print the digests of files, and of all files of directories, like `b3sum`; sends nothing.
    Hash(DataHashArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Hashes on all cores. A file whose inode, size and times are unchanged since the last hashing is not read again. The last line, \
on standard error, is the digest of all files together; their order does not matter.

Example:
  coord data hash images/ | b3sum --check --quiet")]
pub(crate) struct DataHashArguments {
    /// Hash these files, and all files of these directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Hash all files, even those whose inode, size and times are unchanged since the last hashing.
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A run whose data file is missing takes it from the store by its digest. Stored files are not sent again. A symbolic link \
that leads out of its directory is rejected, unless DVC made it.

Example:
  coord data add train.csv images/")]
pub(crate) struct DataAddArguments {
    /// Store these files, and all files of these directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Hash all files, even those whose inode, size and times are unchanged since the last hashing.
    #[arg(long)]
    pub(crate) rehash: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The directory contains `model.safetensors` (names of a `state_dict`); `predict.py`, which reads raw files of the job's kind \
and prints predictions in their units (needs torch, numpy and safetensors; missing for a Rust program); `model.pt`, the module \
with the trained weights (TorchScript only); `README.md`, a model card; and `manifest.json` with the preprocessing. Every \
byte is verified by its digest.

A TorchScript file is a program. The export replaces the weights in the file without running it; only `--raw-inputs` runs it. \
Loading `model.pt`, as `predict.py` does, runs it too: export only modules from sources that you trust.

Example:
  coord export 3f9a --to model
  python3 model/predict.py new.csv
  python3 -c 'from safetensors.torch import load_file; print(load_file(\"model/model.safetensors\").keys())'")]
pub(crate) struct ExportArguments {
    /// Export this checkpoint: id or unique prefix.
    pub(crate) checkpoint: String,
    /// Write the files to this directory, which must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Also write `model-raw.pt`, a TorchScript module that contains the preprocessing; this runs the module's code.
    #[arg(long, conflicts_with = "without_module")]
    pub(crate) raw_inputs: bool,
    /// Export without the TorchScript module, if its file is lost; this omits `predict.py`, too.
    #[arg(long)]
    pub(crate) without_module: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints canonical JSON, whose digest is the checkpoint's id: job, code, data, environment, numerics, all tensors and the \
state of each rank.

Example:
  coord manifest 3f9a | jq .data")]
pub(crate) struct ManifestArguments {
    /// Print the manifest of this checkpoint: id or unique prefix.
    pub(crate) checkpoint: String,
    #[command(flatten)]
    pub(crate) address: Address,
}
