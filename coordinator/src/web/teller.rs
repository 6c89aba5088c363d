//! Creates the events of [`super::events`], once for all listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockstep_common::RunId;
use lockstep_core::ClusterState;
use lockstep_core::state::{Listed, Run};
use lockstep_core::view::RunRow;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::events::{Events, News};
use crate::node::CallError;
use crate::query::Answers;
use crate::query::documents;

/// Changes within this time are sent together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Number of runs per read of the state, so that reads do not block the event loop for long.
const RUNS_AT_A_TIME: usize = 64;

/// The task that creates events, with the state that listeners have received.
pub(super) struct Teller {
    answers: Answers,
    events: Events,
    stop: CancellationToken,
    /// Each run in memory, as last sent.
    known: BTreeMap<RunId, Known>,
    /// Log index up to which changes were sent.
    index: u64,
    /// Number of rows that were created so far.
    rows_made: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Known {
    row: RunRow,
    /// Hash of its note. The event of a changed note does not contain the note; the page reads it.
    note: u64,
    /// Hash of its placement.
    devices: u64,
}

impl Teller {
    pub(super) fn new(answers: Answers, events: Events, stop: CancellationToken) -> Self {
        Self { answers, events, stop, known: BTreeMap::new(), index: 0, rows_made: Arc::default() }
    }

    #[cfg(test)]
    pub(super) fn rows_made(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.rows_made)
    }

    /// Creates events until `stop` is cancelled. `points` receives the ids of runs with new metrics.
    pub(super) async fn run(mut self, points: broadcast::Receiver<RunId>) {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            // It ends with the event loop or the tracker.
            _ = self.tell(points) => {}
        }
    }

    async fn tell(&mut self, mut points: broadcast::Receiver<RunId>) -> Result<(), CallError> {
        let handle = self.answers.handle().clone();
        let mut changes = handle.changes();
        self.index = handle.applied();
        let all = handle.read(|state| state.runs().iter().map(|run| run.id().clone()).collect::<Vec<_>>()).await?;
        for (run, seen) in self.look(all).await? {
            self.known.insert(run, seen);
        }
        loop {
            let mut measured = BTreeSet::new();
            tokio::select! {
                biased;
                changed = changes.next() => changed?,
                run = points.recv() => match run {
                    Ok(run) => drop(measured.insert(run)),
                    Err(RecvError::Lagged(_)) => measured.extend(self.known.keys().cloned()),
                    Err(RecvError::Closed) => return Err(CallError::Stopping),
                },
            }
            tokio::time::sleep(TOGETHER).await;
            loop {
                match points.try_recv() {
                    Ok(run) => drop(measured.insert(run)),
                    // It is unknown which ids were missed, so every run may have new metrics.
                    Err(TryRecvError::Lagged(_)) => measured.extend(self.known.keys().cloned()),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            self.tell_changes(&measured).await?;
        }
    }

    /// Sends the changes since the last call, and an event for each run in `measured`, which has new metrics.
    async fn tell_changes(&mut self, measured: &BTreeSet<RunId>) -> Result<(), CallError> {
        let changed = self.answers.handle().changes_since(self.index).await?;
        self.index = changed.index;
        let mut nodes = changed.nodes;
        let edited: BTreeSet<RunId> = changed.runs.iter().cloned().collect();
        let mut runs = changed.runs;
        // New metrics can raise alarms, which change the row of a run.
        let also: Vec<RunId> = measured.iter().filter(|run| !runs.contains(run)).cloned().collect();
        runs.extend(also);
        let seen = self.look(runs.clone()).await?;
        let here: BTreeSet<&RunId> = seen.iter().map(|(id, _)| id).collect();
        let gone = runs.iter().filter(|run| !here.contains(run)).cloned().collect();
        self.tell_archived(gone, &edited).await?;
        for (run, seen) in seen {
            let before = self.known.insert(run.clone(), seen.clone());
            if before.as_ref().map(|before| &before.row) != Some(&seen.row) {
                self.say("run", Some(&run), documents::encode_row(&seen.row));
            }
            if before.as_ref().is_some_and(|before| before.note != seen.note) {
                self.say("note", Some(&run), serde_json::json!({ "run": run }).to_string());
            }
            nodes |= before.is_none_or(|before| before.devices != seen.devices);
        }
        if nodes {
            self.say("nodes", None, "{}".to_owned());
        }
        for run in measured {
            if let Some(known) = self.known.get(run) {
                self.say("points", Some(run), serde_json::json!({ "run": run, "step": known.row.step }).to_string());
            }
        }
        Ok(())
    }

    /// Sends changed notes and tags of archived runs; nothing else of them changes. `edited` are the runs that a command has changed; the
    /// others only have new metrics.
    async fn tell_archived(&mut self, runs: Vec<RunId>, edited: &BTreeSet<RunId>) -> Result<(), CallError> {
        for some in runs.chunks(RUNS_AT_A_TIME) {
            let some = some.to_vec();
            let look = move |state: &ClusterState| -> Vec<(Listed, u64)> {
                let archived = some.iter().filter_map(|run| Some((run, state.archived(run)?)));
                archived.map(|(id, run)| (run.listed(id), hash_of(&run.note))).collect()
            };
            let mut changed = Vec::new();
            for (listed, note) in self.answers.handle().read(look).await? {
                // A run that was just archived was sent before. Only its note and tags can differ.
                let is_edited = edited.contains(&listed.id);
                let before = self.known.remove(&listed.id);
                if before.as_ref().map_or(is_edited, |before| before.note != note) {
                    self.say("note", Some(&listed.id), serde_json::json!({ "run": listed.id }).to_string());
                }
                if before.map_or(is_edited, |before| before.row.tags != listed.tags) {
                    changed.push(listed);
                }
            }
            match self.answers.runs().archived_rows(changed).await {
                Ok(mut rows) => {
                    self.rows_made.fetch_add(rows.len() as u64, Ordering::Relaxed);
                    self.answers.add_alarms(&mut rows);
                    for row in &rows {
                        self.say("run", Some(&row.id), documents::encode_row(row));
                    }
                }
                Err(status) => warn!("cannot send changes of archived runs to pages: {}", status.message()),
            }
        }
        Ok(())
    }

    /// Reads `runs` from the state, [`RUNS_AT_A_TIME`] per read. Runs that are not in memory are missing from the result.
    async fn look(&mut self, runs: Vec<RunId>) -> Result<Vec<(RunId, Known)>, CallError> {
        let mut seen = Vec::with_capacity(runs.len());
        for some in runs.chunks(RUNS_AT_A_TIME) {
            let some = some.to_vec();
            let look = move |state: &ClusterState| -> Vec<Known> {
                some.iter().filter_map(|run| state.run(run)).map(Known::of).collect()
            };
            let known = self.answers.handle().read(look).await?;
            self.rows_made.fetch_add(known.len() as u64, Ordering::Relaxed);
            seen.extend(known.into_iter().map(|mut known| {
                self.answers.add_alarms(std::slice::from_mut(&mut known.row));
                (known.row.id.clone(), known)
            }));
        }
        Ok(seen)
    }

    fn say(&self, kind: &'static str, run: Option<&RunId>, data: String) {
        let news = News { kind, run: run.map(ToString::to_string), data: Arc::from(data) };
        // An error means that there are no listeners.
        let _ = self.events.told.send(news);
    }
}

impl Known {
    fn of(run: &Run) -> Self {
        let placed = run.state.placement.iter().map(|(process, placed)| (process, &placed.node, placed.device));
        let devices = hash_of(&(run.state.status.is_final(), placed.collect::<Vec<_>>()));
        Self { row: RunRow::of(run), note: hash_of(&run.state.note), devices }
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
