//! Reports on what all processes have: that they differ, or that they agree after all. Such a report can put the device of another
//! node out of use, and all processes send the same; so it counts once a process of a second node confirms it.
//!
//! ```text
//!  first report ─ kept in the run ─ the same of another node ───────────> it counts
//!                              ├─── another one of another node ────────> transient failure: they contradict each other
//!                              └─── the others end without such a report > transient failure of the one that sent it
//! ```

use std::collections::BTreeSet;

use lockstep_common::NodeId;

use super::runs::{ProcessPhase, Run, Unconfirmed};
use crate::state::reports::ReportBody;

/// Unconfirmed reports of one generation that are kept; of more, the oldest is forgotten.
const UNCONFIRMED: usize = 8;

/// Whether a report counts.
pub(super) enum Confirmation {
    /// It counts, with what both witnesses know.
    Confirmed(ReportBody),
    /// It waits for a witness.
    Waits,
    /// Another node says otherwise.
    Contradicted(String),
}

impl Run {
    /// Compares what `process` says of all processes after `step` with what those of other nodes said.
    pub(super) fn confirm(&mut self, process: u32, step: u64, body: &ReportBody) -> Confirmation {
        let nodes: BTreeSet<&NodeId> = self.state.placement.values().map(|placed| &placed.node).collect();
        if nodes.len() < 2 {
            return Confirmation::Confirmed(body.clone());
        }
        let node = self.node_of(process).cloned();
        // Nobody goes on after `Corrupt`, so that a second one is about the same, whatever its step.
        let doubts = |body: &ReportBody| matches!(body, ReportBody::Corrupt { .. });
        let same = |other: &ReportBody| step_of(other) == Some(step) || (doubts(other) && doubts(body));
        let of_others = |first: &&Unconfirmed| same(&first.body) && self.sent_from(first) != node.as_ref();
        let Some(first) = self.state.unconfirmed.iter().find(of_others) else {
            self.keep(process, body);
            return Confirmation::Waits;
        };
        match both(&first.body, body) {
            Some(body) => Confirmation::Confirmed(body),
            None => Confirmation::Contradicted(format!(
                "{} and {} say different things of what all processes have after step {step}",
                first.processes.first().map_or_else(String::new, |process| self.name_of(*process)),
                self.name_of(process)
            )),
        }
    }

    fn keep(&mut self, process: u32, body: &ReportBody) {
        let unconfirmed = &mut self.state.unconfirmed;
        if let Some(first) = unconfirmed.iter_mut().find(|first| both(&first.body, body).is_some()) {
            first.processes.insert(process);
            return;
        }
        if unconfirmed.len() == UNCONFIRMED {
            unconfirmed.remove(0);
        }
        unconfirmed.push(Unconfirmed { processes: BTreeSet::from([process]), body: body.clone() });
    }

    fn sent_from(&self, report: &Unconfirmed) -> Option<&NodeId> {
        self.node_of(*report.processes.first()?)
    }

    /// Whether `process` has said that all differ: it ends after that, and its report waits for a witness.
    pub(super) fn has_doubted(&self, process: u32) -> bool {
        self.doubts().any(|doubt| doubt.processes.contains(&process))
    }

    /// The process that said that all differ, if nobody of another node did, and that in words.
    pub(super) fn unconfirmed_doubt(&self) -> Option<(u32, String)> {
        let doubt = self.doubts().next()?;
        let (process, step) = (*doubt.processes.first()?, step_of(&doubt.body)?);
        let name = self.name_of(process);
        let words =
            format!("{name} says that the processes differ after step {step}, and none of another node says so");
        Some((process, words))
    }

    /// The first process of another node than those that said that all differ, if there is one that has not finished.
    pub(super) fn silent_witness(&self) -> Option<u32> {
        let from = self.sent_from(self.doubts().next()?)?;
        let mut others = self.state.placement.iter().filter(|(_, placed)| placed.node != *from);
        others.find(|(_, placed)| !matches!(placed.phase, ProcessPhase::Finished { .. })).map(|(process, _)| *process)
    }

    fn doubts(&self) -> impl Iterator<Item = &Unconfirmed> {
        self.state.unconfirmed.iter().filter(|report| matches!(report.body, ReportBody::Corrupt { .. }))
    }
}

fn step_of(body: &ReportBody) -> Option<u64> {
    match body {
        ReportBody::Corrupt { step, .. } | ReportBody::Agreed { step, .. } => Some(*step),
        _ => None,
    }
}

/// What two processes say, if it is the same. One whose peers were gone by then may know less of tensors and trails.
fn both(first: &ReportBody, second: &ReportBody) -> Option<ReportBody> {
    match (first, second) {
        (
            ReportBody::Corrupt { step, agreed, fingerprints, tensors, trail },
            ReportBody::Corrupt {
                step: step_2,
                agreed: agreed_2,
                fingerprints: fingerprints_2,
                tensors: tensors_2,
                trail: trail_2,
            },
        ) => {
            let same = (step, agreed, fingerprints) == (step_2, agreed_2, fingerprints_2);
            let tensors = if tensors.is_empty() { tensors_2 } else { tensors };
            let trail = if trail == trail_2 { trail.clone() } else { Vec::new() };
            same.then(|| ReportBody::Corrupt {
                step: *step,
                agreed: *agreed,
                fingerprints: fingerprints.clone(),
                tensors: tensors.clone(),
                trail,
            })
        }
        (ReportBody::Agreed { .. }, ReportBody::Agreed { .. }) => (first == second).then(|| first.clone()),
        _ => None,
    }
}
