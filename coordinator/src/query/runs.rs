//! Reads runs for clients, from the state or from the archive. The archive is read outside of the event loop.

use lockstep_common::{RunId, chain};
use lockstep_core::ClusterState;
use lockstep_core::state::{ArchivedRun, Found, Listed, Run};
use lockstep_core::view::{RunRow, RunView};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::page::{MOST_ROWS, Page};
use crate::node::{CallError, Handle};
use crate::store::Archive;

/// Reads runs. Clones share the sources.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    handle: Handle,
    archive: Archive,
}

/// A run as read from the state.
enum Seen<T, A> {
    /// Complete, because the run is in memory.
    Here(T),
    /// Still to be completed from the archive.
    Archived(A),
}

impl Runs {
    pub(crate) fn new(handle: Handle, archive: Archive) -> Self {
        Self { handle, archive }
    }

    /// The view of the run with the id or unique prefix `typed`.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` if the archive cannot be read.
    pub(crate) async fn view(&self, typed: &str) -> Result<RunView, Status> {
        let typed = typed.to_owned();
        let found = self.handle.read(move |state| state.find_run(&typed).map(|found| seen(found, RunView::of))).await?;
        let seen = found.map_err(CallError::from)?;
        self.whole(seen, RunView::of).await
    }

    /// The result of `of` for `run`; `None` if there is no such run.
    pub(crate) async fn one<T: Send + 'static>(&self, run: RunId, of: fn(&Run) -> T) -> Result<Option<T>, Status> {
        match self.handle.read(move |state| state.found(&run).map(|found| seen(found, of))).await? {
            Some(seen) => Ok(Some(self.whole(seen, of).await?)),
            None => Ok(None),
        }
    }

    /// The rows of all runs in memory: active runs, and the runs that ended last.
    pub(crate) async fn recent(&self) -> Result<Vec<RunRow>, Status> {
        Ok(self.handle.read(ClusterState::run_rows).await?)
    }

    /// A page of the list of all runs: the last `limit` runs with a number below `before`. Without `before` it is the first page, which
    /// also contains all active runs.
    pub(crate) async fn page(&self, before: Option<u64>, limit: usize) -> Result<Page<RunRow>, Status> {
        let limit = limit.clamp(1, MOST_ROWS);
        let look = move |state: &ClusterState| {
            let mut page = Page::of(state, before, limit, |found| match found {
                Found::Here(run) => Seen::Here(RunRow::of(run)),
                Found::Archived(id, run) => Seen::Archived(run.listed(id)),
            });
            if before.is_none() {
                let older = state.going_on().into_iter().filter(|run| run.submission.number < page.before);
                page.runs.splice(0..0, older.map(|run| Seen::Here(RunRow::of(run))));
            }
            page
        };
        let page: Page<Seen<RunRow, Listed>> = self.handle.read(look).await?;
        let archive = self.archive.clone();
        let complete = move || {
            let numbers = page.runs.iter().filter_map(|seen| match seen {
                Seen::Here(_) => None,
                Seen::Archived(listed) => Some(listed.number),
            });
            let numbers: Vec<u64> = numbers.collect();
            let mut kept = archive.for_lists(&numbers).map_err(|error| lost(&error))?.into_iter();
            page.try_map(|seen| match seen {
                Seen::Here(row) => Ok(row),
                Seen::Archived(listed) => listed.row(&kept.next().unwrap_or_default()).map_err(|error| lost(&error)),
            })
        };
        spawn_blocking(complete).await.map_err(panicked)?
    }

    /// The rows of archived runs, in the same order.
    pub(crate) async fn archived_rows(&self, runs: Vec<Listed>) -> Result<Vec<RunRow>, Status> {
        let archive = self.archive.clone();
        let read = move || {
            let numbers: Vec<u64> = runs.iter().map(|run| run.number).collect();
            let kept = archive.for_lists(&numbers).map_err(|error| lost(&error))?;
            runs.into_iter().zip(kept).map(|(run, kept)| run.row(&kept).map_err(|error| lost(&error))).collect()
        };
        spawn_blocking(read).await.map_err(panicked)?
    }

    /// The rows of all runs, oldest first. Reads page after page, so that agents do not wait for it.
    pub(crate) async fn rows(&self) -> Result<Vec<RunRow>, Status> {
        let (mut rows, mut before) = (Vec::new(), u64::MAX);
        loop {
            let page = self.page(Some(before), MOST_ROWS).await?;
            rows.extend(page.runs.into_iter().rev());
            if page.older == 0 {
                break;
            }
            before = page.before;
        }
        rows.reverse();
        Ok(rows)
    }

    /// A page of runs with their jobs in canonical form.
    pub(crate) async fn jobs(&self, before: Option<u64>, limit: usize) -> Result<Page<(RunId, String)>, Status> {
        let limit = limit.clamp(1, MOST_ROWS);
        let look = move |state: &ClusterState| {
            Page::of(state, before, limit, |found| match found {
                Found::Here(run) => Seen::Here((run.id().clone(), run.submission.job.clone())),
                Found::Archived(id, _) => Seen::Archived(id.clone()),
            })
        };
        let page = self.handle.read(look).await?;
        let archive = self.archive.clone();
        let one = move |seen| match seen {
            Seen::Here(job) => Ok(job),
            Seen::Archived(id) => {
                let rows = archive.rows(&id).map_err(|error| lost(&error))?;
                let job = ArchivedRun::job(&id, &rows).map_err(|error| lost(&error))?;
                Ok((id, job))
            }
        };
        spawn_blocking(move || page.try_map(one)).await.map_err(panicked)?
    }

    async fn whole<T: Send + 'static>(&self, seen: Seen<T, Archived>, of: fn(&Run) -> T) -> Result<T, Status> {
        let (id, archived) = match seen {
            Seen::Here(said) => return Ok(said),
            Seen::Archived(archived) => archived,
        };
        let archive = self.archive.clone();
        let read = move || {
            let rows = archive.rows(&id).map_err(|error| lost(&error))?;
            archived.whole(&id, rows).map(|run| of(&run)).map_err(|error| lost(&error))
        };
        spawn_blocking(read).await.map_err(panicked)?
    }
}

type Archived = (RunId, Box<ArchivedRun>);

fn seen<T>(found: Found<'_>, of: fn(&Run) -> T) -> Seen<T, Archived> {
    match found {
        Found::Here(run) => Seen::Here(of(run)),
        Found::Archived(id, run) => Seen::Archived((id.clone(), Box::new(run.clone()))),
    }
}

fn lost(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::data_loss(chain(error))
}

fn panicked(_: tokio::task::JoinError) -> Status {
    Status::internal("reading the archive panicked; see the coordinator's log")
}
