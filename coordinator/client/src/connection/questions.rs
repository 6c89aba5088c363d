//! Questions to a coordinator, whose answers are decoded.

use std::collections::BTreeMap;

use lockstep_coordinator::query::documents::{self, DocumentError};
use lockstep_coordinator::query::page::{MOST_ROWS, Page};
use lockstep_core::view::{CheckpointView, NodeView, RunRow, RunView};
use lockstep_rpc::query_request::What;
use lockstep_rpc::tracked_query::What as Tracked;
use lockstep_rpc::{Empty, RunsQuery, TrackedQuery};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::Client;
use crate::terminal::{Exit, Failure, Output};

impl Client {
    /// All runs, oldest first.
    pub(crate) async fn runs(&self) -> Result<Vec<RunRow>, Failure> {
        Ok(self.newest_runs(usize::MAX).await?.0)
    }

    /// The newest `most` runs and all active runs, oldest first, and the number of runs that are left out. They are read in pages.
    pub(crate) async fn newest_runs(&self, most: usize) -> Result<(Vec<RunRow>, u64), Failure> {
        let (mut rows, mut counted, mut before) = (BTreeMap::new(), 0, None);
        loop {
            let page = self.run_page(before, most - counted).await?;
            // The first page has all active runs, also older ones, which do not count. They may have ended since.
            counted += page.runs.iter().filter(|row| row.number >= page.before).count();
            rows.extend(page.runs.into_iter().map(|row| (row.number, row)));
            if page.older == 0 || counted >= most {
                let also = rows.range(..page.before).count() as u64;
                return Ok((rows.into_values().collect(), page.older.saturating_sub(also)));
            }
            before = Some(page.before);
        }
    }

    /// A page of the list of runs: at most `most` runs with numbers below `before`. Without `before`: the newest, and all active runs.
    pub(crate) async fn run_page(&self, before: Option<u64>, most: usize) -> Result<Page<RunRow>, Failure> {
        let limit = Some(most.min(MOST_ROWS) as u32);
        let text = self.query(What::Runs(RunsQuery { recent: false, limit, before })).await?;
        documents::decode_page(&text).map_err(|error| unreadable(&error))
    }

    /// All active runs, and the runs that ended last.
    pub(crate) async fn recent_runs(&self) -> Result<Vec<RunRow>, Failure> {
        let recent = RunsQuery { recent: true, limit: None, before: None };
        documents::decode_rows(&self.query(What::Runs(recent)).await?).map_err(|error| unreadable(&error))
    }

    /// The run with this id, unique prefix or name.
    pub(crate) async fn run(&self, run: &str) -> Result<RunView, Failure> {
        read_run(&self.query(What::Run(run.to_owned())).await?)
    }

    /// All nodes that the coordinator knows, also lost ones.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeView>, Failure> {
        read(&self.query(What::Nodes(Empty {})).await?)
    }

    /// The checkpoints of all runs.
    pub(crate) async fn checkpoints(&self) -> Result<Vec<CheckpointView>, Failure> {
        read(&self.query(What::Checkpoints(String::new())).await?)
    }

    /// A JSON document with numbers of a run: series, curves or alarms.
    pub(crate) async fn tracked(&self, run: &str, what: Tracked) -> Result<String, Failure> {
        self.query(What::Tracked(TrackedQuery { run: run.to_owned(), what: Some(what) })).await
    }
}

/// Decodes the document of a run.
pub(crate) fn read_run(text: &str) -> Result<RunView, Failure> {
    documents::decode_run(text).map_err(|error| unreadable(&error))
}

/// Decodes any other JSON document.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    documents::decode(text).map_err(|error| unreadable(&error))
}

/// Prints a document of the coordinator as the answer of `--json`.
pub(crate) fn print_json(text: &str, out: &mut Output) -> Result<Exit, Failure> {
    let value: Value = read(text)?;
    out.json(&value);
    Ok(Exit::Done)
}

/// The failure of an answer that cannot be decoded: it comes from another version.
fn unreadable(error: &DocumentError) -> Failure {
    Failure::caused(Exit::Unreachable, error).hint("use the `coord` of the coordinator's version")
}
