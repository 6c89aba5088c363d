//! Checks and applies reports.

use lockstep_common::{Ending, RunId};

use crate::outcome::Effect;
use crate::state::accept;
use crate::state::cluster::ClusterState;
use crate::state::corruption::Found;
use crate::state::ending::End;
use crate::state::reports::ReportBody;
use crate::state::runs::{ProcessPhase, Run, Status};
use crate::state::witness::Confirmation;

/// Maximum number of overrides of data that a run stores. Every list of runs contains them.
const OVERRIDES: usize = 256;

impl Run {
    /// The reason why `process` may not send `body` now: its generation does not train yet, or the process is past that phase.
    pub(crate) fn untimely(&self, process: u32, body: &ReportBody) -> Option<String> {
        match body {
            ReportBody::Share { .. }
            | ReportBody::ShareFailed { .. }
            | ReportBody::ShareRefused { .. }
            | ReportBody::Finished { .. }
            | ReportBody::Corrupt { .. }
            | ReportBody::Agreed { .. } => {
                let is_training = self.state.status == Status::Running;
                (!is_training).then(|| "it sent a report about training before all processes were ready".to_owned())
            }
            ReportBody::Derived { overrides } => {
                let is_ready =
                    self.state.placement.get(&process).is_none_or(|placed| placed.phase != ProcessPhase::Assigned);
                let of_data =
                    self.state.measured.overrides.iter().filter(|known| known.key.starts_with("data.")).count();
                let too_many = of_data + overrides.len() > OVERRIDES;
                (is_ready || too_many).then(|| {
                    format!("it reported changed data after it was ready, or more than {OVERRIDES} changes of data")
                })
            }
            ReportBody::Block { .. }
            | ReportBody::Ready { .. }
            | ReportBody::Failed { .. }
            | ReportBody::Exited { .. } => None,
        }
    }

    /// The reason why no process of this run may send `body`: it names a step that the job does not have, or a checkpoint at a step without
    /// one.
    pub(crate) fn impossible(&self, body: &ReportBody) -> Option<String> {
        let (last, every) = (self.last_step(), self.job.checkpoint.every_steps);
        let beyond = |step: u64, what: &str| {
            (step > last).then(|| format!("it reported {what} step {step}, but the last step is {last}"))
        };
        let no_checkpoint = |step: u64| {
            let due = step <= last && (step == last || self.job.checkpoint_due(step));
            (!due).then(|| {
                let when = if every == 0 { "only".to_owned() } else { format!("every {every} steps, and") };
                format!("it reported a checkpoint at step {step}, but the job writes one {when} at step {last}")
            })
        };
        match body {
            ReportBody::Block { progress, .. } => beyond(progress.as_ref()?.step, "the end of"),
            ReportBody::Share { step, .. }
            | ReportBody::ShareFailed { step, .. }
            | ReportBody::ShareRefused { step, .. } => no_checkpoint(*step),
            ReportBody::Corrupt { step, .. } | ReportBody::Agreed { step, .. } => beyond(*step, "a comparison after"),
            ReportBody::Finished { step, .. } => {
                (*step != last).then(|| format!("it finished at step {step}, but the last step is {last}"))
            }
            ReportBody::Ready { .. }
            | ReportBody::Failed { .. }
            | ReportBody::Exited { .. }
            | ReportBody::Derived { .. } => None,
        }
    }
}

impl ClusterState {
    /// Applies a report that passed all checks.
    pub(crate) fn apply_report(
        &mut self,
        at_ms: u64,
        id: &RunId,
        process: u32,
        body: &ReportBody,
        effects: &mut Vec<Effect>,
    ) {
        match body {
            ReportBody::Ready { address, numerics, environment } => {
                self.ready(at_ms, id, process, address, numerics, environment);
            }
            ReportBody::Block { progress, bytes } => {
                if let (Some(progress), 0) = (progress, process) {
                    self.progressed(id, progress.clone());
                }
                effects.push(Effect::AppendBlock { run: id.clone(), process, bytes: bytes.clone() });
            }
            ReportBody::Share { step, blob } => self.share(at_ms, id, process, *step, blob),
            ReportBody::ShareFailed { step, reason } => self.share_failed(at_ms, id, process, *step, reason),
            ReportBody::ShareRefused { step, reason } => self.share_refused(at_ms, id, process, *step, reason),
            ReportBody::Finished { step, state } => {
                self.finished(at_ms, id, process, *step, state);
                self.end_lonely_doubt(at_ms, id, effects);
            }
            ReportBody::Failed { reason, transient } => {
                let what = reason.clone();
                let ending = if *transient { Ending::Transient { what } } else { Ending::Permanent { what } };
                self.ended(at_ms, id, process, &End { ending, code: 0, output: "" }, effects);
            }
            ReportBody::Exited { code, output, ending } => {
                let ending = ending.clone().unwrap_or_else(|| Ending::of_code(*code));
                self.ended(at_ms, id, process, &End { ending, code: *code, output }, effects);
            }
            ReportBody::Corrupt { step, .. } | ReportBody::Agreed { step, .. } => {
                self.compared(at_ms, id, (process, *step), body, effects);
            }
            ReportBody::Derived { overrides } => {
                if let Some(measured) = self.measured_mut(id) {
                    accept::remember(&mut measured.overrides, accept::derived(overrides));
                }
            }
        }
    }

    /// Handles a comparison of all replicas. It counts once a process on another node confirms it ([`Run::confirm`]).
    fn compared(
        &mut self,
        at_ms: u64,
        id: &RunId,
        (process, step): (u32, u64),
        body: &ReportBody,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.run_mut(id) else { return };
        if matches!(body, ReportBody::Agreed { .. }) && run.open_corruptions().all(|open| open.step != step) {
            return;
        }
        match run.confirm(process, step, body) {
            Confirmation::Confirmed(ReportBody::Corrupt { step, agreed, fingerprints, tensors, trail }) => {
                let found = Found { step, agreed, fingerprints: &fingerprints, tensors: &tensors, trail: &trail };
                self.corrupt(at_ms, id, process, found, effects);
            }
            Confirmation::Confirmed(ReportBody::Agreed { step, fingerprint, trail }) => {
                self.agreed(at_ms, id, step, fingerprint, &trail, effects);
            }
            Confirmation::Waits | Confirmation::Confirmed(_) => {}
            Confirmation::Contradicted(what) => {
                let end = End { ending: Ending::Transient { what }, code: 0, output: "" };
                self.ended(at_ms, id, process, &end, effects);
            }
        }
    }

    /// If a process reported that replicas differ, and all processes on other nodes have finished without confirming it, ends the
    /// generation with a transient error of that process.
    fn end_lonely_doubt(&mut self, at_ms: u64, id: &RunId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(id).filter(|run| run.state.status == Status::Running) else { return };
        if let Some((process, what)) = run.unconfirmed_doubt().filter(|_| run.silent_witness().is_none()) {
            let end = End { ending: Ending::Transient { what }, code: 0, output: "" };
            self.ended(at_ms, id, process, &end, effects);
        }
    }
}
