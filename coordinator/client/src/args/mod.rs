//! Commands, arguments and help texts of `coord`.

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
  coord submit --local 2 job.toml          train on this machine with two processes, without a coordinator
  coord serve                              run a coordinator on 127.0.0.1:7070 ...
  worker --join 127.0.0.1:7070             ... and a worker on this machine
  coord submit job.toml --follow           submit a job and watch the run
  coord checkpoints                        list checkpoints
  coord resume 3f9a --follow               resume from a checkpoint as a new run, with the same bits
  coord verify 7d3k                        re-run a run and compare every bit
  coord checkout 7d3k                      rebuild the code of a run
  coord reproduce 7d3k                     rebuild code and data, re-run every step, compare every bit
  coord diff 7d3k 9x2m                     show how two runs differ and where they diverge";

/// Lockstep's coordinator and its command line.
///
/// Lockstep trains models data-parallel and makes every run reproducible bit for bit.
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
    /// Submit a job and print the id of the new run.
    Submit(SubmitArguments),
    /// Start a new run from a checkpoint.
    Resume(ResumeArguments),
    /// Re-run steps of a run and compare them with its record, bit for bit.
    Verify(VerifyArguments),
    /// Show how two runs differ, and the first step and tensor where they diverge.
    Diff(DiffArguments),
    /// List runs, newest last: all active runs and the newest ended ones.
    #[command(visible_alias = "runs")]
    Ps(PsArguments),
    /// Show the state, placement, progress and checkpoints of a run.
    Show(ShowArguments),
    /// List the nodes and their devices.
    Nodes(Reader),
    /// Remove a node that is gone or lost.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Take devices of a node out of use; their runs move to other devices.
    Fence(FenceArguments),
    /// Return fenced devices to use.
    Unfence(FenceArguments),
    /// List the checkpoints of one run or of all runs.
    Checkpoints(CheckpointsArguments),
    /// Rebuild the work tree of a run, byte for byte.
    Checkout(CheckoutArguments),
    /// Rebuild the code and data of a run from its id, re-run every step, and compare every bit.
    Reproduce(ReproduceArguments),
    /// Store data in the coordinator's store, or print its digests.
    #[command(subcommand)]
    Data(DataCommand),
    /// Show the ancestors and descendants of a run or checkpoint.
    Lineage(LineageArguments),
    /// Export a checkpoint as safetensors, TorchScript, a prediction script and a model card.
    Export(ExportArguments),
    /// Print the manifest of a checkpoint: digests of its job, code, data, numerics and tensors.
    Manifest(ManifestArguments),
    /// Print the output of a run's processes.
    Logs(LogsArguments),
    /// Stop a run for good; its checkpoints remain and can be resumed.
    Cancel(CancelArguments),
    /// Replace the tags of a run.
    Tag(TagArguments),
    /// Replace the note of a run.
    Note(NoteArguments),
    /// Copy the numbers of a run to TensorBoard, MLflow, Weights & Biases, CSV or Parquet.
    Mirror(MirrorArguments),
    /// Show runs side by side: their numbers and the differing keys of their jobs.
    Compare(CompareArguments),
    /// Plot series of a run in the terminal.
    Plot(PlotArguments),
    /// Watch the cluster and its runs, live.
    Top(TopArguments),
    /// Print the coordinator's configuration.
    Config(ConfigArguments),
}

/// The address of the coordinator, an option of every command that sends requests.
#[derive(Clone, Debug, Args)]
pub(crate) struct Address {
    /// Connect to the coordinator at this address.
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
Prints `listening on ADDRESS` on standard error once it accepts connections. All state is in the data directory: a \
coordinator that is killed and restarted with it has lost nothing that it acknowledged, and workers reconnect by themselves.

Example:
  coord serve --listen 127.0.0.1:0 --data-dir /srv/lockstep")]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}

/// Options that override keys of the configuration file and of the environment.
#[derive(Debug, Args)]
pub(crate) struct SettingsArguments {
    /// Listen for workers and commands (gRPC) on this address; port 0 takes a free port [default: 127.0.0.1:7070].
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<String>,
    /// Serve the web page on this address; `off` disables it [default: ten ports above that of `--listen`].
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) web_listen: Option<String>,
    /// Keep the coordinator's state in this directory [default: .lockstep/coordinator].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep checkpoints in this directory, which all workers share [default: `store` in the data directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Read this configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Checks the job, hashes its data files and records the Git commit of its work tree before it sends anything.

Examples:
  coord submit job.toml --set steps=200 --set optimizer.lr=0.01 --follow
  coord submit job.toml --local 2          without a coordinator and a worker")]
pub(crate) struct SubmitArguments {
    /// Read the job from this TOML file.
    pub(crate) job: PathBuf,
    /// Override a key of the job; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Accept a work tree with uncommitted changes, and store changed and untracked files with the run.
    #[arg(long)]
    pub(crate) allow_dirty: bool,
    /// Reject more than this many MiB of changed files, and do not store a commit that is larger.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=KEPT_BYTES >> 20))]
    pub(crate) code_limit: u64,
    /// Hash all data files, even those whose inode, size and times are unchanged since the last hashing.
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Store the data files in the coordinator's store, so that the run can be reproduced without the originals.
    #[arg(long)]
    pub(crate) keep_data: bool,
    #[command(flatten)]
    pub(crate) start: StartArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The new run takes its job, data, code and seeds from the checkpoint, and continues with the next sample, also within an \
epoch. A Rust program is built from the recorded code; `--accept code` builds it from the current work tree. \
Every digest is verified before loading. Changed data and different numerics are rejected. The message names both \
values and the `--accept` that allows the difference. Accepted differences are recorded in the new run, in its checkpoints, \
and in all runs resumed from them.

Examples:
  coord resume 3f9a --follow
  coord resume 3f9a --accept numerics.cpu.model")]
pub(crate) struct ResumeArguments {
    /// Resume this checkpoint: id or unique prefix.
    pub(crate) checkpoint: String,
    /// Accept this difference from the checkpoint: `code`, `numerics[.KEY]` or `data[.PATH]`; may be given several times.
    #[arg(long, value_name = "KEY")]
    pub(crate) accept: Vec<String>,
    /// Look for the job's files in this directory, if they were moved.
    #[arg(long, value_name = "DIR")]
    pub(crate) base_dir: Option<PathBuf>,
    /// Reject more than this many MiB of changed files (with `--accept code`).
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=KEPT_BYTES >> 20))]
    pub(crate) code_limit: u64,
    #[command(flatten)]
    pub(crate) start: StartArguments,
}

/// Options of `submit` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    #[command(flatten)]
    pub(crate) address: Address,
    /// Watch the run until it ends; the exit code then says how it ended.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Run a coordinator and N workers of one process each on this machine until the job ends.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) local: Option<u32>,
    /// Keep the state of `--local` in this directory [default: `.lockstep` beside the job; for `resume`, in the current directory].
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print the id of the new run as JSON; with `--follow`, the whole run after its end.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Re-runs the steps from the nearest checkpoint, as a new run that writes no checkpoints, on the workers of the cluster and \
on any number of processes. Each step is compared with the record: samples, loss, gradient norm, learning rate; \
fingerprints of all tensors at the steps where they were recorded (`report.fingerprints_every`); and the state at \
checkpoints. Exit code 0: all bits are equal; 7: they differ, and the first step and tensor are named.

Examples:
  coord verify 7d3k                        the whole run
  coord verify 3f9a                        the steps before this checkpoint
  coord verify 7d3k --steps 120..140")]
pub(crate) struct VerifyArguments {
    /// Verify this run or checkpoint: id or unique prefix, or the name of a run.
    pub(crate) target: String,
    /// Compare only the steps from A to B, both included [default: all steps of a run; of a checkpoint, those since the one before].
    #[arg(long, value_name = "A..B", value_parser = steps)]
    pub(crate) steps: Option<(u64, u64)>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0: all common steps are equal bit for bit; 7: they diverge.

Example:
  coord diff 7d3k 9x2m --bisect")]
pub(crate) struct DiffArguments {
    /// Compare this run or checkpoint: id or unique prefix, or the name of a run.
    pub(crate) a: String,
    /// Compare it with this run or checkpoint.
    pub(crate) b: String,
    /// Re-run both from the last equal fingerprints, with fingerprints at every step, to find the step and the tensor.
    #[arg(long)]
    pub(crate) bisect: bool,
    /// Print the full difference of the commits, like `git diff`.
    #[arg(long)]
    pub(crate) patch: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

fn steps(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.ok_or_else(|| "expected A..B, for example 120..140".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coord runs --commit 3f9a1c               takes a branch or a tag, too
  coord runs --data train.csv --where 'optimizer.lr>0.001' --where kind=mlp
  coord runs --limit 500 --json            the newest 500 runs; without a limit, JSON has all")]
pub(crate) struct PsArguments {
    /// List only runs of this commit (or unique prefix), branch or tag.
    #[arg(long, value_name = "COMMIT")]
    pub(crate) commit: Option<String>,
    /// List only runs with this data file, given by path or by a prefix of its digest.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<String>,
    /// List only runs whose job fulfils this condition (= != > >= < <=); the last part of a key suffices; may be given several times.
    #[arg(long = "where", value_name = "KEY>VALUE")]
    pub(crate) conditions: Vec<Condition>,
    /// List the newest N runs and all active runs [default: 100; with `--json`, all runs].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// List all runs.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Show this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Print the loss, gradient norm and learning rate of every step, evaluations and telemetry.
    #[arg(long)]
    pub(crate) metrics: bool,
    /// Print the hardware, the libraries and all settings that determine bits.
    #[arg(long, conflicts_with = "metrics")]
    pub(crate) environment: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointsArguments {
    /// List only the checkpoints of this run: id, unique prefix, or name.
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without `--process`, each line begins with the number of its process.

Example:
  coord logs 7d3k --process 0 --follow")]
pub(crate) struct LogsArguments {
    /// Print the output of this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Print only the output of this process.
    #[arg(long, value_name = "P")]
    pub(crate) process: Option<u32>,
    /// Continue until the run ends.
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    /// Cancel this run: id, unique prefix, or name.
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The coordinator fences a device itself after a process on it computed or stored wrong values. A fence lasts until \
`coord unfence`, even if the worker restarts. `coord nodes` shows fenced devices, `coord show RUN` the reason.

Examples:
  coord fence node-b                       all devices of the node
  coord unfence node-b cuda:3")]
pub(crate) struct FenceArguments {
    /// Fence or unfence devices of this node.
    pub(crate) node: String,
    /// Fence or unfence only this device: `cuda:N`, or `cpu` for all CPU slots of the node.
    pub(crate) device: Option<String>,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Remove a node that is gone or lost; a node that is connected or has fenced devices is rejected.
    Remove(NodeRemoveArguments),
}

#[derive(Debug, Args)]
pub(crate) struct NodeRemoveArguments {
    /// Remove the node of this name.
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  LOCKSTEP_COORD_LEASE_MS=5000 coord config --show --config site.toml")]
pub(crate) struct ConfigArguments {
    /// Print each key with its value and the source of the value.
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

    #[test]
    fn documented_commands_are_those_of_coord() {
        lockstep_support::cli_is_current(Arguments::command());
    }
}
