//! The words of commands that bring back what a run came from, and take away what came of it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Address;
use super::Reader;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the whole tree: the run that began, its checkpoints, the runs that were resumed from them, and so on; what was asked \
for has an arrow. Checkpoints that nothing came of are counted.

Example:
  coord lineage 3f9a")]
pub(crate) struct LineageArguments {
    /// Run or checkpoint: id or unique prefix of an id; of a run also its name.
    pub(crate) target: String,
    /// Every checkpoint.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is rebuilt are all files of the commit and all that differed from it: edited, staged, untracked, deleted, modes, \
symbolic links, submodules, empty directories; not what `.gitignore` names. The coordinator keeps the commit itself if it \
is not too large; else it comes from a repository that has it, or by `git fetch` from the run's remote.

Example:
  coord checkout 7d3k again                prints where it lies, and which data files it has")]
pub(crate) struct CheckoutArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// Where to; must be empty or not exist [default: `run-<id>`].
    pub(crate) directory: Option<PathBuf>,
    /// A clone that may have the commit; may be repeated. Looked through before this directory's and the job's own.
    #[arg(long = "repository", value_name = "DIR")]
    pub(crate) repositories: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The code is rebuilt as `coord checkout` does. Data is taken from the rebuilt tree, or from the coordinator's store, where \
`coord submit --keep-data` and `coord data add` put it. Then the job is trained from its first step to its end, and all \
that the run recorded is compared. Exit code 0: every bit again; 7: something differs.

Examples:
  coord reproduce 7d3k                     on the coordinator's workers
  coord reproduce 7d3k again --on local    here, in `again` and `again.lockstep`, with nothing but this machine")]
pub(crate) struct ReproduceArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// Where its code is rebuilt; must be empty or not exist [default: `run-<id>`].
    pub(crate) directory: Option<PathBuf>,
    /// Where it is trained: by the coordinator's workers, or `local` or `local=N`: by N workers of this machine and a
    /// coordinator of their own, which write to `DIRECTORY.lockstep`.
    #[arg(long = "on", value_name = "local[=N]", value_parser = on_local)]
    pub(crate) on_local: Option<u32>,
    /// A clone that may have the commit; may be repeated.
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
        .ok_or_else(|| "expected `local` or `local=N`, N to 64".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Keep files, and all files of directories, by their digests; prints them as `b3sum` does.
    Add(DataAddArguments),
    /// Print the digests of files, and of all files of directories, as `b3sum` does; nothing is sent.
    Hash(DataHashArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
All cores hash. A file that is as it was the last time (inode, size, times) is not read again. The last line, on standard \
error, is the digest of all together, whatever their order.

Example:
  coord data hash images/ | b3sum --check --quiet")]
pub(crate) struct DataHashArguments {
    /// Files and directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Read all files, also those that are known from the last time by size, inode and times.
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A run whose data file is not where its job says takes it from the store by its digest. What is there is not sent again. A \
symbolic link that leads out of its directory is refused, unless DVC made it.

Example:
  coord data add train.csv images/")]
pub(crate) struct DataAddArguments {
    /// Files and directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Read all files, also those that are known from the last time by size, inode and times.
    #[arg(long)]
    pub(crate) rehash: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The directory holds `model.safetensors`, with the names of a `state_dict`; `predict.py`, which reads raw files of the job's kind \
and prints predictions in their units (it needs torch, numpy and safetensors; there is none for a Rust program); `model.pt`, if \
the model came as TorchScript: the same module with the trained weights; `README.md`, a model card; and `manifest.json`, with \
the preprocessing. Every byte is verified by its digest.

A TorchScript file is a program. Its weights are replaced in the file without running it; `--raw-inputs` runs it here. Whoever \
loads `model.pt`, as `predict.py` does, runs it too: export only modules that you trust as you trust code.

Example:
  coord export 3f9a --to model
  python3 model/predict.py new.csv
  python3 -c 'from safetensors.torch import load_file; print(load_file(\"model/model.safetensors\").keys())'")]
pub(crate) struct ExportArguments {
    /// Checkpoint id, or a prefix that no other one has.
    pub(crate) checkpoint: String,
    /// Where to; must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// TorchScript: also write `model-raw.pt`, the module with the preprocessing inside; runs the module's code to make it.
    #[arg(long, conflicts_with = "without_module")]
    pub(crate) raw_inputs: bool,
    /// TorchScript: leave the module out, where its file is gone; then there is no `predict.py` either.
    #[arg(long)]
    pub(crate) without_module: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The output is the canonical JSON whose digest is the checkpoint's id: job, code, data, environment, numerics, every tensor \
and every rank's state.

Example:
  coord manifest 3f9a | jq .data")]
pub(crate) struct ManifestArguments {
    /// Checkpoint id, or a prefix that no other one has.
    pub(crate) checkpoint: String,
    #[command(flatten)]
    pub(crate) address: Address,
}
