//! Finds runs and checkpoints by what users type: an id, a unique prefix of an id, or a run's name.

use std::collections::BTreeSet;

use lockstep_common::{Digest, RunId};

use super::cluster::ClusterState;
use super::runs::{ArchivedRun, Run};

/// Maximum number of matches that an error lists.
const NAMED_CANDIDATES: usize = 5;

/// The least run id. A name with this id is the first possible entry of that name in the index of names.
const LEAST_ID: &str = "0000000000";

/// The typed text matches no run or checkpoint, or more than one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No run or checkpoint matches the text.
    #[error("there is no {what} `{prefix}`")]
    Nothing {
        /// `run` or `checkpoint`.
        what: &'static str,
        /// The typed text, cut to 80 characters.
        prefix: String,
    },
    /// More than one run or checkpoint matches the text.
    #[error("`{prefix}` matches {count} {what}s: {candidates}; type more characters of the id")]
    NotUnique {
        /// `run` or `checkpoint`.
        what: &'static str,
        /// The typed text, cut to 80 characters.
        prefix: String,
        /// Number of matching runs or checkpoints.
        count: usize,
        /// The first matches, with name and status, or run and step.
        candidates: String,
    },
}

/// A run, archived or not.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// The run is in memory.
    Here(&'a Run),
    /// The run is archived.
    Archived(&'a RunId, &'a ArchivedRun),
}

impl<'a> Found<'a> {
    /// The id of the run.
    pub fn id(self) -> &'a RunId {
        match self {
            Self::Here(run) => run.id(),
            Self::Archived(id, _) => id,
        }
    }

    fn described(self) -> String {
        let (name, status) = match self {
            Self::Here(run) => (&run.job.name, run.state.status.kind()),
            Self::Archived(_, run) => (&run.name, run.status),
        };
        format!("`{}` ({name}, {status})", self.id())
    }
}

impl ClusterState {
    /// The run with this id, archived or not.
    pub fn found(&self, id: &RunId) -> Option<Found<'_>> {
        let archived = || self.archived.get_key_value(id).map(|(id, run)| Found::Archived(id, run));
        self.run(id).map(Found::Here).or_else(archived)
    }

    /// The run with the id `typed`. If there is none, the only run whose id begins with `typed` or whose name is `typed`.
    pub fn find_run(&self, typed: &str) -> Result<Found<'_>, NotFound> {
        let mut fits: BTreeSet<&RunId> = BTreeSet::new();
        // Ids are sorted, so all ids that begin with `typed` follow the least possible one.
        if let Ok(least) = format!("{typed:0<10}").parse::<RunId>()
            && !typed.is_empty()
        {
            let begins = |id: &&RunId| id.as_str().starts_with(typed);
            fits.extend(self.runs.range(&least..).map(|(id, _)| id).take_while(begins));
            fits.extend(self.archived.range(&least..).map(|(id, _)| id).take_while(begins));
        }
        // A complete id has precedence over names.
        if fits.first().is_none_or(|id| id.as_str() != typed)
            && let Ok(least) = LEAST_ID.parse::<RunId>()
        {
            let of_name = self.names.range((typed.to_owned(), least)..).take_while(|(name, _)| name == typed);
            fits.extend(of_name.map(|(_, id)| id));
        }
        let mut fits: Vec<Found<'_>> = fits.into_iter().filter_map(|id| self.found(id)).collect();
        fits.sort_by_key(|found| match found {
            Found::Here(run) => run.submission.number,
            Found::Archived(_, run) => run.number,
        });
        one("run", typed, fits, |found| found.described())
    }

    /// The only committed checkpoint whose id begins with `prefix`.
    pub fn find_checkpoint(&self, prefix: &str) -> Result<Digest, NotFound> {
        let mut fits: Vec<(Digest, String)> = Vec::new();
        // Digests are sorted, so all digests that begin with `prefix` follow the least possible one.
        if let Ok(least) = format!("{prefix:0<64}").parse::<Digest>()
            && !prefix.is_empty()
        {
            let ids = self.checkpoints.range(least..).take_while(|(id, _)| id.to_hex().starts_with(prefix));
            let describe = |id: &Digest, (run, step): &(_, _)| format!("`{}` (run `{run}`, step {step})", id.short());
            fits = ids.map(|(id, made)| (*id, describe(id, made))).collect();
        }
        one("checkpoint", prefix, fits, |(_, text)| text.clone()).map(|(id, _)| id)
    }
}

fn one<T>(what: &'static str, prefix: &str, mut fits: Vec<T>, describe: impl Fn(&T) -> String) -> Result<T, NotFound> {
    let prefix = prefix.chars().take(80).collect();
    match fits.len() {
        0 => Err(NotFound::Nothing { what, prefix }),
        1 => Ok(fits.swap_remove(0)),
        count => {
            let named: Vec<String> = fits.iter().take(NAMED_CANDIDATES).map(describe).collect();
            let more = if count > named.len() { ", .." } else { "" };
            Err(NotFound::NotUnique { what, prefix, count, candidates: named.join(", ") + more })
        }
    }
}
