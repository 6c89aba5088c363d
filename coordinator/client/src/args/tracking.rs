//! The words of commands on what runs tell of themselves: to see it, to write beside it, to take it elsewhere.

use std::path::PathBuf;

use clap::Args;

use super::Address;
use super::Reader;

#[derive(Debug, Args)]
pub(crate) struct TagArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// Letters, digits and `-_.:/=`; none takes all away.
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
pub(crate) struct NoteArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// An empty one takes it away.
    pub(crate) text: String,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What a tool has of the run already is not written again: a mirror that was stopped goes on where it was. Of several targets those are \
written that can be; the others are named, and the exit code is 6. A file that is there is replaced only by a table of the same \
format, and keeps its mode. MLflow takes few characters in a name: one with others is changed, \
and ends in a digest.

Examples:
  coord mirror 7k3 --tensorboard runs                  then: tensorboard --logdir runs
  coord mirror 7k3 --follow --mlflow http://127.0.0.1:5000
  coord mirror 7k3 --csv points.csv --parquet points.parquet")]
pub(crate) struct MirrorArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// Go on with what comes, until the run has ended.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Event files, in a directory of the run's below this one.
    #[arg(long, value_name = "DIR")]
    pub(crate) tensorboard: Option<PathBuf>,
    /// A server of MLflow; `MLFLOW_TRACKING_TOKEN` is its token, if it wants one.
    #[arg(long, value_name = "URI")]
    pub(crate) mlflow: Option<String>,
    /// An offline run of Weights & Biases, which `wandb sync` takes, below this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) wandb: Option<PathBuf>,
    /// MLflow's experiment, or the project of Weights & Biases.
    #[arg(long, value_name = "NAME", default_value = "lockstep")]
    pub(crate) experiment: String,
    /// The Python that has the package `wandb`.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// All points: series, part, step, `at_ms`, value.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// The same, compressed.
    #[arg(long, value_name = "FILE")]
    pub(crate) parquet: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// Runs: ids, unique prefixes of ids, or names.
    #[arg(required = true, num_args = 2..)]
    pub(crate) runs: Vec<String>,
    /// Which series; one that ends with `*` stands for all that begin so [default: loss, gradient norm, evaluations, rates].
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
  coord plot 7k3                                        lists all series")]
pub(crate) struct PlotArguments {
    /// Run: id, unique prefix of an id, or name.
    pub(crate) run: String,
    /// Which; one that ends with `*` stands for all that begin so.
    pub(crate) series: Vec<String>,
    /// Of this process or rank only.
    #[arg(long)]
    pub(crate) part: Option<u32>,
    /// Steps from here.
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// To here.
    #[arg(long)]
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) reader: Reader,
}

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Once, and no more.
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) reader: Reader,
}
