//! What the end of a process means for its run: the one place that judges.
//!
//! Others that are gone, an order to stop and a node that leaves are nobody's fault: the run goes on in its next generation, as
//! often as that happens, and pauses only if generation after generation ends before its first step. A crash or a reason that may
//! pass costs one of the run's [`Retries`](super::Retries), counted for each of the two until a checkpoint is committed,
//! and from the second on the run pauses. A reason that would come again ends the run.

use lockstep_common::{Ending, RunId};

use super::cluster::ClusterState;
use super::runs::{ProcessExit, ProcessPhase, Run, Status, bounded, shortened};
use crate::outcome::Effect;

/// What is known of a process that has ended, or is about to.
pub(super) struct End<'a> {
    pub(super) ending: Ending,
    /// Exit code, or 128 + signal; 0 for one that says itself that it gives up.
    pub(super) code: i32,
    /// Its last output.
    pub(super) output: &'a str,
}

impl ClusterState {
    /// Ends a run for a reason that would come again, said by `process` or found by comparing.
    pub(crate) fn fail(&mut self, at_ms: u64, id: &RunId, process: Option<u32>, reason: &str) {
        let Some(run) = self.runs.get(id) else { return };
        let reason = match process {
            Some(process) => format!("{}: {}", run.name_of(process), shortened(reason)),
            None => shortened(reason),
        };
        self.end_run(at_ms, id, Status::Failed { reason });
    }

    /// A process of the current generation ended.
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
                // It costs nothing, and is not tried as fast as a machine can: processes that do not reach each other would
                // start for ever.
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

    /// Generations that wait for processes to be ready, or for one to say whether all differ.
    pub fn starting(&self) -> Vec<(RunId, u64)> {
        let starting = self.runs.values().filter(|run| run.awaited().is_some());
        starting.map(|run| (run.id().clone(), run.state.generation)).collect()
    }

    /// A generation that has waited for `seconds` without a word is given up: the first process that it waits for failed for a reason
    /// that may pass, so that its node comes last in the next attempt.
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
            Status::Starting => format!("it was not ready, and nothing was heard of the run's start for {seconds} s"),
            _ => format!("it was silent for {seconds} s after another had said that all differ"),
        };
        let end = End { ending: Ending::Transient { what }, code: 0, output: "" };
        self.ended(at_ms, id, process, &end, effects);
    }

    /// Runs whose pause is over at `now_ms`, each with the generation that waits. A clock that went back holds no run longer
    /// than the longest pause.
    pub fn due(&self, now_ms: u64) -> Vec<(RunId, u64)> {
        let longest = self.retries.longest_pause_ms;
        let is_due = |run: &&Run| {
            let due = run.state.due_at_ms;
            run.pauses() && (due <= now_ms || due - now_ms > longest)
        };
        self.runs.values().filter(is_due).map(|run| (run.id().clone(), run.state.generation)).collect()
    }

    /// The pause before generation `generation` is over.
    pub(crate) fn end_pause(&mut self, id: &RunId, generation: u64) {
        if self.runs.get(id).is_some_and(|run| run.pauses() && run.state.generation == generation)
            && let Some(run) = self.run_mut(id)
        {
            run.state.due_at_ms = 0;
            self.place_queued();
        }
    }
}

/// Why the run is given up with this ending.
fn too_often(run: &Run, process: u32, end: &End<'_>, output: &str) -> String {
    let name = run.name_of(process);
    let number = |times: u32| if times == 1 { "1 process".to_owned() } else { format!("{times} processes") };
    let between = "without a new checkpoint in between";
    if let Ending::Transient { what } = &end.ending {
        let (processes, what) = (number(run.state.transients), shortened(what));
        return format!("{processes} gave up for a reason that may pass, {between}; the last, {name}: {what}");
    }
    let last = if output.trim().is_empty() { "nothing" } else { output.trim_end() };
    let (processes, code) = (number(run.state.exits), end.code);
    format!("{processes} ended {between}; the last, {name}, ended with code {code} and wrote: {last}")
}

impl Run {
    /// The process without whose word nothing goes on.
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

    /// Whether it waits for the pause before its next attempt.
    pub fn pauses(&self) -> bool {
        self.state.due_at_ms > 0 && matches!(self.state.status, Status::Queued { .. })
    }

    /// What it waits for meanwhile, for people.
    pub(super) fn pause(&self) -> Option<String> {
        if !self.pauses() {
            return None;
        }
        let since = "since the last checkpoint its";
        let words = match self.state.last_exit.as_ref().and_then(|exit| exit.ending.as_ref()) {
            Some(Ending::Transient { what }) => {
                format!("{since} {} process gave up: {what}", ordinal(self.state.transients))
            }
            Some(ending @ (Ending::PeersGone | Ending::Dismissed | Ending::NodeLeaving | Ending::Finished)) => {
                let futile = self.state.futile;
                format!("{futile} generations in a row made no step; the last ended when a process {ending}")
            }
            Some(Ending::Crashed { .. } | Ending::Permanent { .. }) | None => {
                format!("{since} {} process has crashed", ordinal(self.state.exits))
            }
        };
        Some(format!("pauses before its next attempt: {words}"))
    }
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
