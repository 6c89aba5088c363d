//! An alarm: the fault, where it is, since when, and what to try.

use lockstep_common::series::SeriesKey;
use serde::{Deserialize, Serialize};

/// A fault of a run, with the evidence and what to try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The rule that raised it.
    pub kind: Kind,
    /// Whether the run is only worse than it could be, or likely useless.
    pub severity: Severity,
    /// The step at which the fault began; it was found at a later step.
    pub since_step: u64,
    /// Time of `since_step` in milliseconds of Unix time, interpolated between recorded steps.
    pub since_ms: u64,
    /// The step at which the fault ended; `None` while the alarm is active.
    pub until_step: Option<u64>,
    /// Layer, rank or process of the fault, in words; `None` if it is not known.
    pub place: Option<String>,
    /// The series that shows the fault.
    pub series: SeriesKey,
    /// Summary in one line, without values.
    pub title: String,
    /// Description in whole sentences, with the measured values.
    pub what: String,
    /// Advice, the most promising first.
    #[serde(rename = "try")]
    pub try_: Vec<String>,
}

/// Kinds of faults. Their serialized names are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The loss or the gradient norm left its range and did not return.
    Divergence,
    /// A loss, a norm or a tensor contains NaN or infinity.
    NotFinite,
    /// The gradient of a layer is zero, or tiny in comparison with the other layers.
    Vanishing,
    /// Nearly all outputs of a layer are zero.
    DeadUnits,
    /// The loss no longer falls, although it is high and the learning rate is not at its end.
    Plateau,
    /// The loss on held-out data rises while that on training data falls.
    Overfitting,
    /// The memory of a process or of its device grows steadily.
    MemoryGrowth,
    /// The device's allocator reserves more and more memory, while the allocated memory does not grow.
    Fragmentation,
    /// One process is slower than the others, which wait for it.
    Straggler,
    /// All processes wait for data.
    DataStarvation,
    /// A device runs below its clock because of heat or a power limit.
    Throttling,
    /// Replicas of one state differ. The coordinator raises it: no series shows it.
    ReplicaMismatch,
    /// Checkpoints cannot be written. The coordinator raises it: no series shows it.
    CheckpointFailed,
    /// Media or artifacts of the run exceeded its quota and were dropped. The store of media raises it: no series shows it.
    MediaLeftOut,
}

/// How severe a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run continues, but slower or worse than it could.
    Warning,
    /// The results of the run are likely useless from `since_step` on, or its hardware is faulty.
    Error,
}
