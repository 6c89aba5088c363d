//! Runs as clients see them, wherever they are: in the state, or in the archive, which is read off the event loop.

use lockstep_common::{RunId, chain};
use lockstep_core::ClusterState;
use lockstep_core::replica::RowList;
use lockstep_core::state::{ArchivedRun, Found, Run, StateError};
use lockstep_core::view::{RunRow, RunView};
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::node::{CallError, Handle};
use crate::store::Archive;

/// Reads runs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    handle: Handle,
    archive: Archive,
}

/// What the state says of a run.
enum Seen<T> {
    Here(T),
    /// All else is in the archive.
    Archived(RunId, Box<ArchivedRun>),
}

impl Runs {
    /// Those of the state behind `handle`, and of its archive.
    pub(crate) fn new(handle: Handle, archive: Archive) -> Self {
        Self { handle, archive }
    }

    /// The document of the run that `typed` names.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` if the archive cannot be read.
    pub(crate) async fn view(&self, typed: &str) -> Result<RunView, Status> {
        let typed = typed.to_owned();
        let found = self.handle.read(move |state| state.find_run(&typed).map(|found| seen(found, RunView::of))).await?;
        let seen = found.map_err(CallError::from)?;
        Ok(self.whole(vec![seen], RunView::of).await?.remove(0))
    }

    /// What `of` says of `run`; none if there is no such run.
    pub(crate) async fn one<T: Send + 'static>(&self, run: RunId, of: fn(&Run) -> T) -> Result<Option<T>, Status> {
        let found = self.handle.read(move |state| state.found(&run).map(|found| seen(found, of))).await?;
        Ok(self.whole(found.into_iter().collect(), of).await?.pop())
    }

    /// The rows of a list, in the order of submission: the last `limit` of the runs before number `before`.
    pub(crate) async fn rows(&self, before: u64, limit: usize) -> Result<Vec<RunRow>, Status> {
        let seen = self.seen(before, limit, RunRow::of).await?;
        self.complete(seen, |id, archived, rows| archived.row(id, &rows)).await
    }

    /// The rows of runs that go on, and of the last that ended: those in memory.
    pub(crate) async fn recent(&self) -> Result<Vec<RunRow>, Status> {
        Ok(self.handle.read(ClusterState::run_rows).await?)
    }

    /// What `of` says of each run of a list.
    pub(crate) async fn list<T: Send + 'static>(
        &self,
        before: u64,
        limit: usize,
        of: fn(&Run) -> T,
    ) -> Result<Vec<T>, Status> {
        let seen = self.seen(before, limit, of).await?;
        self.whole(seen, of).await
    }

    async fn seen<T: Send + 'static>(
        &self,
        before: u64,
        limit: usize,
        of: fn(&Run) -> T,
    ) -> Result<Vec<Seen<T>>, CallError> {
        let look = move |state: &ClusterState| -> Vec<Seen<T>> {
            let found = state.listed(before, limit).into_iter();
            found.filter_map(|id| state.found(&id).map(|found| seen(found, of))).collect()
        };
        self.handle.read(look).await
    }

    async fn whole<T: Send + 'static>(&self, seen: Vec<Seen<T>>, of: fn(&Run) -> T) -> Result<Vec<T>, Status> {
        self.complete(seen, move |id, archived, rows| archived.whole(id, rows).map(|run| of(&run))).await
    }

    /// With what `read` makes of the rows of runs in the archive.
    async fn complete<T: Send + 'static>(
        &self,
        seen: Vec<Seen<T>>,
        read: impl Fn(&RunId, &ArchivedRun, RowList) -> Result<T, StateError> + Send + 'static,
    ) -> Result<Vec<T>, Status> {
        let archive = self.archive.clone();
        let one = move |seen| match seen {
            Seen::Here(said) => Ok(said),
            Seen::Archived(id, archived) => {
                let rows = archive.rows(&id).map_err(|error| Status::data_loss(chain(&error)))?;
                read(&id, &archived, rows).map_err(|error| Status::data_loss(chain(&error)))
            }
        };
        let all = spawn_blocking(move || seen.into_iter().map(one).collect());
        all.await.map_err(|_| Status::internal("the archive panicked"))?
    }
}

fn seen<T>(found: Found<'_>, of: fn(&Run) -> T) -> Seen<T> {
    match found {
        Found::Here(run) => Seen::Here(of(run)),
        Found::Archived(id, run) => Seen::Archived(id.clone(), Box::new(run.clone())),
    }
}
