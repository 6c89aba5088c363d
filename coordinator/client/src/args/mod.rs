//! The command line's words.

mod provenance;
mod tracking;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lockstep_host::git::KEPT_BYTES;

use crate::terminal::Exit;
use crate::watch::select::Condition;

pub(super) use provenance::{
    CheckoutArguments, DataAddArguments, DataCommand, DataHashArguments, ExportArguments, LineageArguments,
    ManifestArguments, ReproduceArguments,
};
pub(super) use tracking::{
    CompareArguments, MirrorArguments, NoteArguments, PlotArguments, TagArguments, TopArguments,
};

const EXAMPLES: &str = "\
Examples:
  coord submit --local 2 job.toml          train here, on two worker processes, with nothing else running
  coord serve                              run a coordinator on 127.0.0.1:7070 ...
  worker --join 127.0.0.1:7070             ... and a worker beside it
  coord submit job.toml --follow           hand a job to it and watch
  coord checkpoints                        what there is to resume from
  coord resume 3f9a --follow               go on from a checkpoint, as a new run, bit for bit
  coord verify 7d3k                        make a run again, and compare every bit
  coord checkout 7d3k                      the code that it came from, as it lay there
  coord reproduce 7d3k                     code, data and every step again, and whether the bits are the same
  coord diff 7d3k 9x2m                     what two runs differ in, and where they part";

/// Lockstep's coordinator and the commands that talk to it.
///
/// Lockstep trains data-parallel and makes every run repeatable bit for bit.
#[derive(Debug, Parser)]
#[command(name = "coord", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", Exit::TABLE))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a coordinator until Ctrl-C or SIGTERM.
    Serve(ServeArguments),
    /// Submit a job: prints the id of the new run.
    Submit(SubmitArguments),
    /// Start a new run from a checkpoint.
    Resume(ResumeArguments),
    /// Make steps of a run again and compare them with what was recorded, bit by bit.
    Verify(VerifyArguments),
    /// Tell what two runs differ in, and where their records part.
    Diff(DiffArguments),
    /// List runs, newest last: all that have not ended, and the newest others.
    #[command(visible_alias = "runs")]
    Ps(PsArguments),
    /// Show one run: state, placement, progress, checkpoints.
    Show(ShowArguments),
    /// List the nodes and their devices.
    Nodes(Reader),
    /// Forget a node.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Take devices of a node out of use: runs that have a process there move.
    Fence(FenceArguments),
    /// Give fenced devices back.
    Unfence(FenceArguments),
    /// List checkpoints, of one run or of all.
    Checkpoints(CheckpointsArguments),
    /// Rebuild the work tree that a run came from, byte for byte.
    Checkout(CheckoutArguments),
    /// Make a run again from its id alone: code, data, every step; and compare every bit.
    Reproduce(ReproduceArguments),
    /// Keep data in the coordinator's store.
    #[command(subcommand)]
    Data(DataCommand),
    /// Show where a run or checkpoint comes from, and what was resumed from it.
    Lineage(LineageArguments),
    /// Write a checkpoint as files that other programs read: safetensors, TorchScript, a model card.
    Export(ExportArguments),
    /// Print the manifest of a checkpoint: everything it is made of.
    Manifest(ManifestArguments),
    /// Print what the processes of a run wrote.
    Logs(LogsArguments),
    /// End a run: its processes are stopped, its checkpoints stay and can be resumed from.
    Cancel(CancelArguments),
    /// Write tags on a run, in place of those that it has.
    Tag(TagArguments),
    /// Write a note on a run.
    Note(NoteArguments),
    /// Write a run to other tools: TensorBoard, MLflow, Weights & Biases, CSV, Parquet.
    Mirror(MirrorArguments),
    /// Show runs side by side: their numbers, and what in their jobs is not the same.
    Compare(CompareArguments),
    /// Draw series of a run in the terminal.
    Plot(PlotArguments),
    /// Watch the cluster and its runs.
    Top(TopArguments),
    /// Print the coordinator's configuration.
    Config(ConfigArguments),
}

/// Which coordinator is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct Address {
    /// The coordinator's address.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "LOCKSTEP_ADDR",
        default_value = "127.0.0.1:7070",
        hide_env_values = true
    )]
    pub(crate) addr: String,
}

#[derive(Debug, Args)]
pub(crate) struct Reader {
    #[command(flatten)]
    pub(crate) address: Address,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the line `listening on ADDRESS` on standard error once it answers. All state lies in the data directory: killed \
and started again there, it loses nothing it has acknowledged, and workers come back by themselves.

Example:
  coord serve --listen 127.0.0.1:0 --data-dir /srv/lockstep")]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}

/// Layers of configuration.
#[derive(Debug, Args)]
pub(crate) struct SettingsArguments {
    /// Where the gRPC port opens; port 0 takes a free one [default: 127.0.0.1:7070].
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<String>,
    /// Where the page's port opens, or `off` [default: ten ports above].
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) web_listen: Option<String>,
    /// Directory of the coordinator's state [default: .lockstep/coordinator].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Directory of the checkpoints' blobs, shared with the workers [default: `store` in the data directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The job is checked, its data files are hashed and the git commit of its work tree is recorded before anything is sent.

Examples:
  coord submit job.toml --set steps=200 --set optimizer.lr=0.01 --follow
  coord submit job.toml --local 2          no coordinator and no worker needed")]
pub(crate) struct SubmitArguments {
    /// The job file.
    pub(crate) job: PathBuf,
    /// Override a key of the job; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Accept a work tree with uncommitted changes: all of them are kept with the run, untracked files too.
    #[arg(long)]
    pub(crate) allow_dirty: bool,
    /// MiB of changed files that are kept with a run at most; more are refused. Of the commit itself as much is kept, or
    /// nothing.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=KEPT_BYTES >> 20))]
    pub(crate) code_limit: u64,
    /// Read all data files, also those that are known from the last time by size, inode and times.
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Keep the data files in the coordinator's store, so that the run can be made again without them.
    #[arg(long)]
    pub(crate) keep_data: bool,
    #[command(flatten)]
    pub(crate) start: StartArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The new run takes job, data, code version and seeds from the checkpoint, and continues in the middle of an epoch if that \
is where it was made. A program of the job's own is built from the code that it came from; `--accept code` builds it from \
the work tree as it is now. Every digest is verified before it is loaded. What would change bits is refused: data that is not \
what it was, a machine that computes otherwise. The refusal names both sides, and the `--accept` that goes on regardless; \
the new run, its checkpoints and all that is resumed from them say so ever after.

Examples:
  coord resume 3f9a --follow
  coord resume 3f9a --accept numerics.cpu.model")]
pub(crate) struct ResumeArguments {
    /// Checkpoint id, or a prefix that no other one has.
    pub(crate) checkpoint: String,
    /// Go on although this differs from the checkpoint: `code`, a key in `numerics` or `data`, or one of the two; may be
    /// repeated.
    #[arg(long, value_name = "KEY")]
    pub(crate) accept: Vec<String>,
    /// Where the job's files lie now, if they were moved.
    #[arg(long, value_name = "DIR")]
    pub(crate) base_dir: Option<PathBuf>,
    /// With `--accept code`, MiB of changed files that are kept at most, as for `submit`.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=KEPT_BYTES >> 20))]
    pub(crate) code_limit: u64,
    #[command(flatten)]
    pub(crate) start: StartArguments,
}

/// What `submit` and `resume` have in common.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    #[command(flatten)]
    pub(crate) address: Address,
    /// Watch the run until it ends; the exit code is the run's.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Run an embedded coordinator and N workers, each for one process, for the length of the job.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) local: Option<u32>,
    /// With `--local`: where all state lies [default: `.lockstep` beside the job, or here].
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print the new run, or with `--follow` its last state, as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The replay is a run of its own, on whatever workers are there, with any number of processes; it makes no checkpoints. It \
begins at the nearest checkpoint. Compared are, of every step, the samples, the loss, the gradient norm and the learning \
rate; fingerprints of every tensor where they were recorded (`report.fingerprints_every`); and the state, where a \
checkpoint was made. Exit code 0: every bit again; 7: something differs, and the first step and tensor are named.

Examples:
  coord verify 7d3k                        the whole run again
  coord verify 3f9a                        the steps that lead to this checkpoint
  coord verify 7d3k --steps 120..140")]
pub(crate) struct VerifyArguments {
    /// Run or checkpoint: id or unique prefix of an id; of a run also its name.
    pub(crate) target: String,
    /// Only these steps, both included [default: all of the run; those since the checkpoint before].
    #[arg(long, value_name = "A..B", value_parser = steps)]
    pub(crate) steps: Option<(u64, u64)>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0: the steps that both have are equal, bit for bit; 7: they part.

Example:
  coord diff 7d3k 9x2m --bisect")]
pub(crate) struct DiffArguments {
    /// Run or checkpoint: id or unique prefix of an id; of a run also its name.
    pub(crate) a: String,
    /// The other one.
    pub(crate) b: String,
    /// Replay both with fingerprints at every step, from the last fingerprints that agreed, to name step and tensor.
    #[arg(long)]
    pub(crate) bisect: bool,
    /// If the commits differ: also print the whole difference, as `git diff` does.
    #[arg(long)]
    pub(crate) patch: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

fn steps(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.ok_or_else(|| "expected A..B, as 120..140".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coord runs --commit 3f9a1c               also a branch or a tag
  coord runs --data train.csv --where 'optimizer.lr>0.001' --where kind=mlp
  coord runs --limit 500 --json            the newest 500; without a limit, JSON has all runs")]
pub(crate) struct PsArguments {
    /// Only runs of this commit (a prefix is enough), branch or tag.
    #[arg(long, value_name = "COMMIT")]
    pub(crate) commit: Option<String>,
    /// Only runs with this data file, by path or by the beginning of its digest.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<String>,
    /// Only runs whose job has such a value; the end of a key is enough; may be repeated.
    #[arg(long = "where", value_name = "KEY>VALUE")]
    pub(crate) conditions: Vec<Condition>,
    /// The newest N runs, and all that have not ended [default: 100; with --json all runs].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// All runs.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// The reports: every step's loss, gradient norm and learning rate, evaluations, telemetry.
    #[arg(long)]
    pub(crate) metrics: bool,
    /// What it runs on, and everything that is known to change bits.
    #[arg(long, conflicts_with = "metrics")]
    pub(crate) environment: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointsArguments {
    /// Only those of this run.
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without `--process`, lines begin with the number of the process that wrote them.

Example:
  coord logs 7d3k --process 0 --follow")]
pub(crate) struct LogsArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// Only this process.
    #[arg(long, value_name = "P")]
    pub(crate) process: Option<u32>,
    /// Go on until the run ends.
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A device whose process computed or kept something wrong is fenced by the coordinator, and stays so until it is given back, \
whatever its worker does. `coord nodes` shows what is fenced, `coord show RUN` why.

Examples:
  coord fence node-b                       all devices of the node
  coord unfence node-b cuda:3")]
pub(crate) struct FenceArguments {
    /// The node's name.
    pub(crate) node: String,
    /// Only the devices with this name: `cuda:N`, or `cpu` for all CPU slots, which share processor and memory.
    pub(crate) device: Option<String>,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Forget a node that is gone or lost; one that is there, or has fenced devices, is refused.
    Remove(NodeRemoveArguments),
}

#[derive(Debug, Args)]
pub(crate) struct NodeRemoveArguments {
    /// The node's name.
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  LOCKSTEP_COORD_LEASE_MS=5000 coord config --show --config site.toml")]
pub(crate) struct ConfigArguments {
    /// Print each key, its value and where the value came from.
    #[arg(long, required = true)]
    pub(crate) show: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
