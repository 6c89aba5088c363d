//! The runs and nodes that changed since a log index, so that events can be built without reading the whole state.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::RunId;
use lockstep_core::replica::Rows;

/// The log index of the last change of each run, and of any node, since the coordinator's start.
#[derive(Debug, Default)]
pub(super) struct Touched {
    last: BTreeMap<RunId, u64>,
    by_index: BTreeSet<(u64, RunId)>,
    nodes: u64,
    /// Runs whose desired state may have changed.
    desired: BTreeSet<RunId>,
    /// Log index of the last call of [`Touched::note`].
    noted: u64,
}

/// Changes after a log index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesSince {
    /// Runs that may have changed, each once, in the order of their last change.
    pub runs: Vec<RunId>,
    /// Whether any node may have changed.
    pub nodes: bool,
    /// The changes up to this log index are included; the next call passes it.
    pub index: u64,
}

impl Touched {
    /// Records the changes in `rows`, which are written once the log is applied up to `index`.
    pub(super) fn note(&mut self, rows: &Rows, index: u64) {
        self.noted = index;
        let keys: Vec<&str> = match rows {
            Rows::Changed(rows) => rows.iter().map(|(key, _)| key.as_str()).collect(),
            Rows::Replaced(rows) => rows.iter().map(|(key, _)| key.as_str()).collect(),
        };
        for key in keys {
            let mut parts = key.split('/');
            match (parts.next(), parts.next()) {
                (Some("node"), _) => self.nodes = index,
                (
                    Some(
                        kind @ ("run" | "process" | "checkpoint" | "submission" | "measured" | "progress" | "archived"),
                    ),
                    Some(id),
                ) => {
                    if let Ok(run) = id.parse::<RunId>() {
                        if matches!(kind, "run" | "process" | "checkpoint") {
                            self.desired.insert(run.clone());
                        }
                        self.touch(run, index);
                    }
                }
                _ => {}
            }
        }
    }

    /// Runs whose desired state may have changed since the last call.
    pub(super) fn take_desired(&mut self) -> BTreeSet<RunId> {
        std::mem::take(&mut self.desired)
    }

    /// Changes after `index`. The run that changed first comes first.
    pub(super) fn since(&self, index: u64) -> ChangesSince {
        let runs = self.by_index.iter().rev().take_while(|(at, _)| *at > index).map(|(_, run)| run.clone());
        let mut runs: Vec<RunId> = runs.collect();
        runs.reverse();
        ChangesSince { runs, nodes: self.nodes > index, index: self.noted.max(index) }
    }

    fn touch(&mut self, run: RunId, index: u64) {
        if let Some(before) = self.last.insert(run.clone(), index) {
            self.by_index.remove(&(before, run.clone()));
        }
        self.by_index.insert((index, run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_once_and_only_to_whoever_does_not_know_its_last_change() {
        let rows = |keys: &[&str]| Rows::Changed(keys.iter().map(|key| ((*key).to_owned(), None)).collect());
        let run = |id: &str| id.parse::<RunId>().unwrap();
        let (a, b) = (run("000000000a"), run("000000000b"));
        let mut touched = Touched::default();
        touched.note(&rows(&["submission/000000000a", "run/000000000a", "request/x", "retries"]), 3);
        touched.note(&rows(&["run/000000000b", "node/n"]), 5);
        touched.note(&rows(&["checkpoint/000000000a/00000000000000000001"]), 7);
        touched.note(&rows(&["archived/000000000b"]), 8);
        touched.note(&rows(&[]), 9);
        let since = |index| touched.since(index);
        assert_eq!(since(0), ChangesSince { runs: vec![a.clone(), b.clone()], nodes: true, index: 9 });
        assert_eq!(since(5), ChangesSince { runs: vec![a, b.clone()], nodes: false, index: 9 });
        assert_eq!(since(7).runs, [b]);
        assert_eq!(since(9), ChangesSince { runs: vec![], nodes: false, index: 9 });
    }
}
