//! Arguments of the commands on numbers, tags and notes of runs.

use std::path::PathBuf;

use clap::Args;

use super::Address;
use super::Reader;

#[derive(Debug, Args)]
pub(crate) struct TagArguments {
    /// Tag this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Set these tags of letters, digits and `-_.:/=`; without any, all tags are removed.
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
pub(crate) struct NoteArguments {
    /// Write the note of this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Set this text; an empty text removes the note.
    pub(crate) text: String,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Skips everything that the target already has, so a stopped mirror can be restarted. If one of several targets fails, the others \
are still written; the failed one is named, and the exit code is 6. Overwrites an existing file only if it is a table of the same \
format, and keeps its mode. Names with characters that MLflow rejects are changed, and end in a digest.

Examples:
  coord mirror 7k3 --tensorboard runs                  then: tensorboard --logdir runs
  coord mirror 7k3 --follow --mlflow http://127.0.0.1:5000
  coord mirror 7k3 --csv points.csv --parquet points.parquet")]
pub(crate) struct MirrorArguments {
    /// Copy the numbers of this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Continue until the run ends.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Write event files for TensorBoard into a subdirectory of this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) tensorboard: Option<PathBuf>,
    /// Send the numbers to this MLflow server; `MLFLOW_TRACKING_TOKEN` sets its token.
    #[arg(long, value_name = "URI")]
    pub(crate) mlflow: Option<String>,
    /// Write an offline run of Weights & Biases below this directory, for `wandb sync`.
    #[arg(long, value_name = "DIR")]
    pub(crate) wandb: Option<PathBuf>,
    /// Write to the MLflow experiment or Weights & Biases project of this name.
    #[arg(long, value_name = "NAME", default_value = "lockstep")]
    pub(crate) experiment: String,
    /// Run this Python, which must have the package `wandb`, for `--wandb`.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Write all points as CSV: series, part, step, `at_ms`, value.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write all points as Parquet, with the columns of `--csv`.
    #[arg(long, value_name = "FILE")]
    pub(crate) parquet: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// Compare these runs: ids, unique prefixes, or names.
    #[arg(required = true, num_args = 2..)]
    pub(crate) runs: Vec<String>,
    /// Compare this series; a `*` at the end matches any ending; may be given several times [default: loss, gradient norm,
    /// evaluations, rates].
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Vec<String>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coord plot 7k3 loss grad_norm
  coord plot 7k3 'phase/*' --part 1
  coord plot 7k3                                        list all series")]
pub(crate) struct PlotArguments {
    /// Plot series of this run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Plot these series; a `*` at the end matches any ending; without any, all series are listed.
    pub(crate) series: Vec<String>,
    /// Plot only the series of this process or rank.
    #[arg(long)]
    pub(crate) part: Option<u32>,
    /// Start the plot at this step.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// End the plot at this step [default: the last recorded step].
    #[arg(long)]
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Print once and end.
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}
