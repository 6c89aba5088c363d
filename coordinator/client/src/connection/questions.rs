//! Questions to a coordinator, and its answers as what they are.

use lockstep_coordinator::query::documents::{self, DocumentError};
use lockstep_core::view::{CheckpointView, NodeView, RunRow, RunView};
use lockstep_rpc::query_request::What;
use lockstep_rpc::tracked_query::What as Tracked;
use lockstep_rpc::{Empty, RunsQuery, TrackedQuery};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::Client;
use crate::terminal::{Exit, Failure, Output};

impl Client {
    /// All runs.
    pub(crate) async fn runs(&self) -> Result<Vec<RunRow>, Failure> {
        read_runs(&self.query(What::Runs(RunsQuery { recent: false })).await?)
    }

    /// Runs that go on, and the last that ended.
    pub(crate) async fn recent_runs(&self) -> Result<Vec<RunRow>, Failure> {
        read_runs(&self.query(What::Runs(RunsQuery { recent: true })).await?)
    }

    /// The run of this id, or of the beginning of one.
    pub(crate) async fn run(&self, run: &str) -> Result<RunView, Failure> {
        read_run(&self.query(What::Run(run.to_owned())).await?)
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeView>, Failure> {
        read(&self.query(What::Nodes(Empty {})).await?)
    }

    /// All checkpoints.
    pub(crate) async fn checkpoints(&self) -> Result<Vec<CheckpointView>, Failure> {
        read(&self.query(What::Checkpoints(String::new())).await?)
    }

    /// What is tracked of a run, as a document.
    pub(crate) async fn tracked(&self, run: &str, what: Tracked) -> Result<String, Failure> {
        self.query(What::Tracked(TrackedQuery { run: run.to_owned(), what: Some(what) })).await
    }
}

/// The document of a list of runs.
pub(crate) fn read_runs(text: &str) -> Result<Vec<RunRow>, Failure> {
    documents::decode_rows(text).map_err(|error| unreadable(&error))
}

/// The document of a run.
pub(crate) fn read_run(text: &str) -> Result<RunView, Failure> {
    documents::decode_run(text).map_err(|error| unreadable(&error))
}

/// Any other document.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    documents::decode(text).map_err(|error| unreadable(&error))
}

/// A document for programs.
pub(crate) fn print_json(text: &str, out: &mut Output) -> Result<Exit, Failure> {
    let value: Value = read(text)?;
    out.json(&value);
    Ok(Exit::Done)
}

/// Another version's answer.
fn unreadable(error: &DocumentError) -> Failure {
    Failure::caused(Exit::Unreachable, error).hint("coordinator and `coord` must be of the same version")
}
