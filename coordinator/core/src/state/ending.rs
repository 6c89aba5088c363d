//! The consequence of a process's end for its run. It is decided only here.
//!
//! - Lost peers, an order to stop and a leaving node are nobody's fault: the run restarts in its next generation, without a limit. It
//!   pauses only if several generations in a row end before their first step.
//! - Crashes and transient errors are counted separately against the run's [`Retries`](super::Retries), until a checkpoint is committed.
//!   From the second one on, the run pauses before it restarts.
//! - A permanent error fails the run.

use lockstep_common::{Ending, RunId};

use super::cluster::ClusterState;
use super::runs::{ProcessExit, ProcessPhase, Run, Status, bounded, shortened};
use crate::outcome::Effect;

/// The end of a process that has ended, or is about to.
pub(super) struct End<'a> {
    pub(super) ending: Ending,
    /// Exit code, or 128 + signal; 0 if the process itself reported the error.
    pub(super) code: i32,
    /// The last lines of its output.
    pub(super) output: &'a str,
}

impl ClusterState {
    /// Fails a run with a permanent error: of `process`, or if it is `None`, of the run.
    pub(crate) fn fail(&mut self, at_ms: u64, id: &RunId, process: Option<u32>, reason: &str) {
        let Some(run) = self.runs.get(id) else { return };
        let reason = match process {
            Some(process) => format!("{}: {}", run.name_of(process), shortened(reason)),
            None => shortened(reason),
        };
        self.end_run(at_ms, id, Status::Failed { reason });
    }

    /// Decides the consequence of the end of a process of the current generation.
    pub(super) fn ended(&mut self, at_ms: u64, id: &RunId, process: u32, end: &End<'_>, effects: &mut Vec<Effect>) {
        let retries = self.retries;
        let Some(placed) = self.process_mut(id, process) else { return };
        if let ProcessPhase::Finished { exited, .. } = &mut placed.phase {
            *exited = true;
            return;
        }
        let (node, code, output) = (placed.node.clone(), end.code, bounded(end.output));
        let Some(run) = self.run_mut(id) else { return };
        let generation = run.state.generation;
        if code != 0 && run.has_doubted(process) && run.silent_witness().is_some() {
            return;
        }
        let (mut ending, mut blamed) = (end.ending.clone(), node.clone());
        if let (Ending::PeersGone, Some((doubter, what))) = (&ending, run.unconfirmed_doubt()) {
            ending = Ending::Transient { what };
            blamed = run.node_of(doubter).cloned().unwrap_or(blamed);
        }
        let mut pause_ms = 0;
        let spent = match &ending {
            Ending::Permanent { what } => return self.fail(at_ms, id, Some(process), what),
            Ending::Finished | Ending::PeersGone | Ending::Dismissed | Ending::NodeLeaving => {
                // These endings have no limit, but the run pauses if generations end before their first step. Otherwise processes that
                // cannot reach each other would restart without a pause, for ever.
                run.state.futile = if run.state.progress.is_none() { run.state.futile.saturating_add(1) } else { 0 };
                pause_ms = retries.pause_ms(run.state.futile);
                None
            }
            Ending::Crashed { .. } => Some((&mut run.state.exits, retries.crashes)),
            Ending::Transient { .. } => Some((&mut run.state.transients, retries.transients)),
        };
        if let Some((count, most)) = spent {
            *count = count.saturating_add(1);
            let failed = run.state.failed_on.entry(blamed).or_default();
            *failed = failed.saturating_add(1);
            if *count >= most {
                let end = End { ending, ..*end };
                let reason = too_often(run, process, &end, &output);
                return self.end_run(at_ms, id, Status::Failed { reason });
            }
            pause_ms = retries.pause_ms(*count);
        }
        let ending = Some(match ending {
            Ending::Transient { what } => Ending::Transient { what: shortened(&what) },
            ending => ending,
        });
        run.state.last_exit = Some(ProcessExit { generation, process, node, code, output, ending });
        run.state.due_at_ms = if pause_ms == 0 { 0 } else { at_ms.saturating_add(pause_ms) };
        self.leave_generation(id, effects);
        self.place_queued();
    }

    /// Runs, with their generations, that wait for a process to be ready or to confirm that replicas differ.
    pub fn starting(&self) -> Vec<(RunId, u64)> {
        let starting = self.runs.values().filter(|run| run.awaited().is_some());
        starting.map(|run| (run.id().clone(), run.state.generation)).collect()
    }

    /// Ends a generation that has waited for `seconds`. The first process that it waits for counts as failed with a transient error, so its
    /// node is used last in the next generation.
    pub(crate) fn start_anew(
        &mut self,
        at_ms: u64,
        id: &RunId,
        generation: u64,
        seconds: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get(id) else { return };
        let Some(process) = run.awaited().filter(|_| run.state.generation == generation) else { return };
        let what = match run.state.status {
            Status::Starting => format!("it was not ready {seconds} s after the run was placed (`start_limit_s`)"),
            _ => format!(
                "it did not confirm within {seconds} s (`start_limit_s`) that the replicas differ, as reported by another node"
            ),
        };
        let end = End { ending: Ending::Transient { what }, code: 0, output: "" };
        self.ended(at_ms, id, process, &end, effects);
    }

    /// Runs whose pause is over at `now_ms`, with their generations. A pause also ends if it would last longer than the longest pause,
    /// because then the clock was set back.
    pub fn due(&self, now_ms: u64) -> Vec<(RunId, u64)> {
        let longest = self.retries.longest_pause_ms;
        let is_due = |run: &&Run| {
            let due = run.state.due_at_ms;
            run.pauses() && (due <= now_ms || due - now_ms > longest)
        };
        self.runs.values().filter(is_due).map(|run| (run.id().clone(), run.state.generation)).collect()
    }

    /// Ends the pause before `generation` and places the run. Does nothing if the run does not pause, or has another generation.
    pub(crate) fn end_pause(&mut self, id: &RunId, generation: u64) {
        if self.runs.get(id).is_some_and(|run| run.pauses() && run.state.generation == generation)
            && let Some(run) = self.run_mut(id)
        {
            run.state.due_at_ms = 0;
            self.place_queued();
        }
    }
}

/// The reason of a run that fails because its retries are used up.
fn too_often(run: &Run, process: u32, end: &End<'_>, output: &str) -> String {
    let name = run.name_of(process);
    let between = "without a new checkpoint in between";
    if let Ending::Transient { what } = &end.ending {
        let (count, what) = (processes(run.state.transients), shortened(what));
        return format!("{count} failed with a transient error {between}; the last, {name}: {what}");
    }
    let last = if output.trim().is_empty() { "nothing" } else { output.trim_end() };
    let (count, code) = (processes(run.state.exits), end.code);
    format!("{count} crashed {between}; the last, {name}, ended with code {code} and wrote: {last}")
}

impl Run {
    /// The first process that the generation waits for.
    fn awaited(&self) -> Option<u32> {
        match self.state.status {
            Status::Starting => {
                let mut placed = self.state.placement.iter();
                placed.find(|(_, placed)| placed.phase == ProcessPhase::Assigned).map(|(process, _)| *process)
            }
            Status::Running => self.silent_witness(),
            _ => None,
        }
    }

    /// Whether the run is queued and pauses before its next attempt.
    pub fn pauses(&self) -> bool {
        self.state.due_at_ms > 0 && matches!(self.state.status, Status::Queued { .. })
    }

    /// The reason of a pausing run, for users.
    pub(super) fn pause(&self) -> Option<String> {
        if !self.pauses() {
            return None;
        }
        let since = "since the last checkpoint";
        let words = match self.state.last_exit.as_ref().and_then(|exit| exit.ending.as_ref()) {
            Some(Ending::Transient { what }) => {
                format!("{} failed with a transient error {since}; the last: {what}", processes(self.state.transients))
            }
            Some(ending @ (Ending::PeersGone | Ending::Dismissed | Ending::NodeLeaving | Ending::Finished)) => {
                let futile = self.state.futile;
                format!("{futile} generations in a row completed no step; in the last one, a process {ending}")
            }
            Some(Ending::Crashed { .. } | Ending::Permanent { .. }) | None => {
                format!("{} crashed {since}", processes(self.state.exits))
            }
        };
        Some(format!("pauses before its next attempt: {words}"))
    }
}

fn processes(number: u32) -> String {
    if number == 1 { "1 process".to_owned() } else { format!("{number} processes") }
}
