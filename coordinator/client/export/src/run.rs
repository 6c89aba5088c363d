//! What is exported: a run as other tools see it, and the things that were measured of it.

use std::collections::BTreeMap;
use std::path::Path;

use lockstep_common::series::{Histogram, Point, SeriesKey};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not at its end: it waits, starts or trains.
    Running,
    /// Made its last step.
    Finished,
    /// Ended before its last step.
    Failed,
    /// Ended by someone.
    Cancelled,
}

/// What the tools call a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// By which it is found again in a tool.
    pub id: String,
    /// For people.
    pub name: String,
    /// As of now.
    pub status: Status,
    /// In milliseconds of Unix time.
    pub started_at_ms: Option<u64>,
    /// In milliseconds of Unix time.
    pub ended_at_ms: Option<u64>,
    /// The job with all defaults, flattened: `optimizer.lr` is `0.1`.
    pub parameters: BTreeMap<String, String>,
    /// As `code.commit`, `final_state`, `note`, and users' own.
    pub tags: BTreeMap<String, String>,
    /// What it read.
    pub datasets: Vec<Dataset>,
}

/// Data that a run read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Mostly its path.
    pub name: String,
    /// Of its bytes.
    pub digest: String,
    /// How many.
    pub bytes: u64,
}

/// Something of a run. Of each name, steps ascend from item to item, but for [`Item::Rewind`]. A series, a text and an image do
/// not share a name; a distribution may have that of a series.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// Values of a series, by ascending step.
    Points {
        /// Which series.
        key: &'a SeriesKey,
        /// Its values.
        points: &'a [Point],
    },
    /// A tensor's distribution.
    Histogram {
        /// Which tensor's.
        key: &'a SeriesKey,
        /// Its step is within.
        histogram: &'a Histogram,
    },
    /// A text.
    Text {
        /// Its name.
        name: &'a str,
        /// Optimizer steps completed.
        step: u64,
        /// In milliseconds of Unix time.
        at_ms: u64,
        /// Where the tool renders Markdown, it is Markdown.
        text: &'a str,
    },
    /// An image.
    Image {
        /// Its name.
        name: &'a str,
        /// Optimizer steps completed.
        step: u64,
        /// In milliseconds of Unix time.
        at_ms: u64,
        /// The file.
        png: &'a [u8],
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// A file to keep with the run.
    Artifact {
        /// Under this name, which may have directories.
        name: &'a str,
        /// Where it is.
        path: &'a Path,
    },
    /// The run went back: what came before of greater steps does not count, and those steps come again.
    Rewind {
        /// The step that it goes on from.
        step: u64,
    },
}

/// A series' name where names are one text: tools group by what stands before a `/`.
pub(crate) fn name_of(key: &SeriesKey) -> String {
    match key.part {
        Some(part) => format!("{}/{part}", key.name),
        None => key.name.clone(),
    }
}

/// A distribution's name among those of series: tools have one kind of thing under a name.
pub(crate) fn histogram_name_of(key: &SeriesKey) -> String {
    name_of(key) + "/histogram"
}
