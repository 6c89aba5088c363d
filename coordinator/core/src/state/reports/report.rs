//! A report: whether it counts, and what it does.

use lockstep_common::{Ending, RunId};

use crate::outcome::Effect;
use crate::state::accept;
use crate::state::cluster::ClusterState;
use crate::state::corruption::Found;
use crate::state::ending::End;
use crate::state::reports::ReportBody;
use crate::state::runs::{ProcessPhase, Run, Status};
use crate::state::witness::Confirmation;

/// Differences of data that a run remembers at most: a process derives a few, and each list of runs shows them.
const OVERRIDES: usize = 256;

impl Run {
    /// Why `process` cannot say `body` now: its generation has not begun to train, or has begun already.
    pub(crate) fn untimely(&self, process: u32, body: &ReportBody) -> Option<String> {
        match body {
            ReportBody::Share { .. }
            | ReportBody::ShareFailed { .. }
            | ReportBody::ShareRefused { .. }
            | ReportBody::Finished { .. }
            | ReportBody::Corrupt { .. }
            | ReportBody::Agreed { .. } => {
                let is_training = self.state.status == Status::Running;
                (!is_training).then(|| "it reports of training, and not all processes are ready".to_owned())
            }
            ReportBody::Derived { overrides } => {
                let is_ready =
                    self.state.placement.get(&process).is_none_or(|placed| placed.phase != ProcessPhase::Assigned);
                let of_data =
                    self.state.measured.overrides.iter().filter(|known| known.key.starts_with("data.")).count();
                let too_many = of_data + overrides.len() > OVERRIDES;
                (is_ready || too_many).then(|| "it derives data anew once too often".to_owned())
            }
            ReportBody::Block { .. }
            | ReportBody::Ready { .. }
            | ReportBody::Failed { .. }
            | ReportBody::Exited { .. } => None,
        }
    }

    /// Why no process of this run can say `body`: it names a step that the job does not have, or where it writes no checkpoint.
    pub(crate) fn impossible(&self, body: &ReportBody) -> Option<String> {
        let (last, every) = (self.last_step(), self.job.checkpoint.every_steps);
        let beyond =
            |step: u64, what: &str| (step > last).then(|| format!("{what} step {step}, and the last is {last}"));
        let no_checkpoint = |step: u64| {
            let due = step <= last && (step == last || self.job.checkpoint_due(step));
            (!due).then(|| {
                format!("a checkpoint at step {step}, and the job writes one every {every} steps up to {last}")
            })
        };
        match body {
            ReportBody::Block { progress, .. } => beyond(progress.as_ref()?.step, "a report of"),
            ReportBody::Share { step, .. }
            | ReportBody::ShareFailed { step, .. }
            | ReportBody::ShareRefused { step, .. } => no_checkpoint(*step),
            ReportBody::Corrupt { step, .. } | ReportBody::Agreed { step, .. } => beyond(*step, "a comparison at"),
            ReportBody::Finished { step, .. } => {
                (*step != last).then(|| format!("finished at step {step}, and its last is {last}"))
            }
            ReportBody::Ready { .. }
            | ReportBody::Failed { .. }
            | ReportBody::Exited { .. }
            | ReportBody::Derived { .. } => None,
        }
    }
}

impl ClusterState {
    /// What a report that counts does.
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

    /// What a process says of all counts with a witness of another node.
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

    /// Whoever said that all differ is alone with it once all others have finished.
    fn end_lonely_doubt(&mut self, at_ms: u64, id: &RunId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(id).filter(|run| run.state.status == Status::Running) else { return };
        if let Some((process, what)) = run.unconfirmed_doubt().filter(|_| run.silent_witness().is_none()) {
            let end = End { ending: Ending::Transient { what }, code: 0, output: "" };
            self.ended(at_ms, id, process, &end, effects);
        }
    }
}
