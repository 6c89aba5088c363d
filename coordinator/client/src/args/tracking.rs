//! Arguments of the commands on numbers, tags and notes of runs.

use std::path::PathBuf;

use clap::Args;

use super::Address;
use super::Reader;

#[derive(Debug, Args)]
pub(crate) struct TagArguments {
    /// Run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Tags of letters, digits and `-_.:/=`; without any, all tags are removed.
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
pub(crate) struct NoteArguments {
    /// Run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Text of the note; an empty text removes the note.
    pub(crate) text: String,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Writes only what the target does not have yet, so a stopped mirror can be restarted. If one of several targets fails, the others \
are still written; the failed one is named, and the exit code is 6. Overwrites an existing file only if it is a table of the same \
format, and keeps its mode. Names with characters that MLflow rejects are changed, and end in a digest.

Examples:
  coord mirror 7k3 --tensorboard runs                  then: tensorboard --logdir runs
  coord mirror 7k3 --follow --mlflow http://127.0.0.1:5000
  coord mirror 7k3 --csv points.csv --parquet points.parquet")]
pub(crate) struct MirrorArguments {
    /// Run: id, unique prefix, or name.
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
    /// Name of the MLflow experiment or of the Weights & Biases project.
    #[arg(long, value_name = "NAME", default_value = "lockstep")]
    pub(crate) experiment: String,
    /// Python with the package `wandb`.
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
    /// Runs: ids, unique prefixes, or names.
    #[arg(required = true, num_args = 2..)]
    pub(crate) runs: Vec<String>,
    /// Compare this series; a `*` at the end matches any ending [default: loss, gradient norm, evaluations, rates].
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
    /// Run: id, unique prefix, or name.
    pub(crate) run: String,
    /// Series; a `*` at the end matches any ending. Without any, all series are listed.
    pub(crate) series: Vec<String>,
    /// Plot only the series of this process or rank.
    #[arg(long)]
    pub(crate) part: Option<u32>,
    /// First step of the plot.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// Last step of the plot [default: the last recorded one].
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
