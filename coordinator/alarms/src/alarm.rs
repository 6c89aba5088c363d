//! What is told of something wrong.

use lockstep_common::series::SeriesKey;
use serde::{Deserialize, Serialize};

/// Something wrong with a run, with the evidence and what to try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// What it is.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// The step at which it began, which is before it was found.
    pub since_step: u64,
    /// About when that was, in milliseconds of Unix time.
    pub since_ms: u64,
    /// The step at which it was over; it stands if there is none.
    pub until_step: Option<u64>,
    /// Where: layer, rank, process; as far as it is known.
    pub place: Option<String>,
    /// What to plot as evidence.
    pub series: SeriesKey,
    /// One line.
    pub title: String,
    /// Sentences, with the figures.
    pub what: String,
    /// What could help, the likeliest first.
    #[serde(rename = "try")]
    pub try_: Vec<String>,
}

/// Kinds of things that go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Loss or gradient norm left its range and stayed out.
    Divergence,
    /// NaN or infinity.
    NotFinite,
    /// A layer gets no gradient to speak of.
    Vanishing,
    /// A layer's outputs are zero.
    DeadUnits,
    /// The loss stands still where it should fall.
    Plateau,
    /// The loss on held-out data rises while that on training data falls.
    Overfitting,
    /// Memory grows without end.
    MemoryGrowth,
    /// The device's allocator holds ever more than is used.
    Fragmentation,
    /// One process is slower than the others, which wait for it.
    Straggler,
    /// All processes wait for data.
    DataStarvation,
    /// A device runs slower than it could, for heat or power.
    Throttling,
    /// Processes that should hold the same state do not. No number tells: the coordinator adds it.
    ReplicaMismatch,
    /// Checkpoints cannot be written. No number tells: the coordinator adds it.
    CheckpointFailed,
    /// Images, texts or files are over a run's quota. No number tells: whoever keeps them adds it.
    MediaLeftOut,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run goes on, worse than it could.
    Warning,
    /// What the run computes from here on is likely worth nothing, or its hardware is in trouble.
    Error,
}
