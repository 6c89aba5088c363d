//! Runs and checkpoints by what people type: an id, the beginning of one, or a run's name.

use lockstep_common::Digest;

use super::cluster::ClusterState;
use super::runs::Run;

/// Candidates that an error names at most.
const NAMED_CANDIDATES: usize = 5;

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

impl ClusterState {
    /// The run with the id `typed`, or the only one whose id begins so or whose name it is.
    pub fn find_run(&self, typed: &str) -> Result<&Run, NotFound> {
        let mut fits: Vec<&Run> = Vec::new();
        if !typed.is_empty() {
            let runs = self.runs();
            if let Some(run) = runs.iter().find(|run| run.id().as_str() == typed) {
                return Ok(run);
            }
            // A replay has the name of the run that it repeats.
            let is_called = |run: &&Run| run.job.name == typed && run.submission.replay.is_none();
            fits = runs.into_iter().filter(|run| run.id().as_str().starts_with(typed) || is_called(run)).collect();
        }
        one("run", typed, fits, |run| format!("`{}` ({}, {})", run.id(), run.job.name, run.state.status.word()))
    }

    /// The committed checkpoint whose id begins with `prefix`.
    pub fn find_checkpoint(&self, prefix: &str) -> Result<Digest, NotFound> {
        let mut fits: Vec<(Digest, String)> = Vec::new();
        if !prefix.is_empty() {
            let ids = self.checkpoints.iter().filter(|(id, _)| id.to_hex().starts_with(prefix));
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
