//! Runs and checkpoints by what people type: an id, the beginning of one, or a run's name.

use std::collections::BTreeSet;

use lockstep_common::{Digest, RunId};

use super::cluster::ClusterState;
use super::runs::{ArchivedRun, Run};

/// Candidates that an error names at most.
const NAMED_CANDIDATES: usize = 5;

/// No id is less: runs of a name stand together, the one with the least id first.
const LEAST_ID: &str = "0000000000";

/// Nothing, or not one thing, fits what was typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// Nothing fits.
    #[error("there is no {what} `{prefix}`")]
    Nothing {
        /// `run` or `checkpoint`.
        what: &'static str,
        /// What was typed.
        prefix: String,
    },
    /// More than one fits.
    #[error("`{prefix}` fits {count} {what}s: {candidates}")]
    NotUnique {
        /// `run` or `checkpoint`.
        what: &'static str,
        /// What was typed.
        prefix: String,
        /// How many fit.
        count: usize,
        /// The first ones, with what tells them apart.
        candidates: String,
    },
}

/// A run that was found.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// The state has it.
    Here(&'a Run),
    /// It is in the archive.
    Archived(&'a RunId, &'a ArchivedRun),
}

impl<'a> Found<'a> {
    /// Its id.
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
    /// The run with this id, also in the archive.
    pub fn found(&self, id: &RunId) -> Option<Found<'_>> {
        let archived = || self.archived.get_key_value(id).map(|(id, run)| Found::Archived(id, run));
        self.run(id).map(Found::Here).or_else(archived)
    }

    /// The run with the id `typed`, or the only one whose id begins so or whose name it is.
    pub fn find_run(&self, typed: &str) -> Result<Found<'_>, NotFound> {
        let mut fits: BTreeSet<&RunId> = BTreeSet::new();
        // The least id that begins so; those that do stand together.
        if let Ok(least) = format!("{typed:0<10}").parse::<RunId>()
            && !typed.is_empty()
        {
            let begins = |id: &&RunId| id.as_str().starts_with(typed);
            fits.extend(self.runs.range(&least..).map(|(id, _)| id).take_while(begins));
            fits.extend(self.archived.range(&least..).map(|(id, _)| id).take_while(begins));
        }
        // A whole id means that run, whatever others are called.
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

    /// The committed checkpoint whose id begins with `prefix`.
    pub fn find_checkpoint(&self, prefix: &str) -> Result<Digest, NotFound> {
        let mut fits: Vec<(Digest, String)> = Vec::new();
        // The least digest that begins so; those that do stand together.
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
