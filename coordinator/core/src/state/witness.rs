//! Confirmation of comparisons: reports that all replicas are equal, or differ. Such a report can fence the device of another node.
//! All processes compare, so all send the same report, and it counts only when a process on a second node confirms it.
//!
//! ```text
//!  first report ─ stored in the run ─ the same report of another node ───────> it counts
//!                                ├─── a different report of another node ────> transient error: they contradict each other
//!                                └─── the others end without such a report ──> transient error of the process that sent it
//! ```

use std::collections::BTreeSet;

use lockstep_common::NodeId;

use super::runs::{ProcessPhase, Run, Unconfirmed};
use crate::state::reports::ReportBody;

/// Maximum number of unconfirmed reports per generation. The oldest is evicted first.
const UNCONFIRMED: usize = 8;

/// The decision whether a comparison counts.
pub(super) enum Confirmation {
    /// It counts. Tensors and trail are combined from both reports.
    Confirmed(ReportBody),
    /// It waits for a report of another node.
    Waits,
    /// A report of another node contradicts it: error message.
    Contradicted(String),
}

impl Run {
    /// Checks a comparison of all replicas after `step`, which `process` sent, against the stored reports of other nodes.
    pub(super) fn confirm(&mut self, process: u32, step: u64, body: &ReportBody) -> Confirmation {
        let nodes: BTreeSet<&NodeId> = self.state.placement.values().map(|placed| &placed.node).collect();
        if nodes.len() < 2 {
            return Confirmation::Confirmed(body.clone());
        }
        let node = self.node_of(process).cloned();
        // A process stops after `Corrupt`, so two of them are about the same corruption, even if their steps differ.
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
                "{} and {} contradict each other about the replicas after step {step}",
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

    /// Whether `process` has reported that replicas differ, and its report waits for confirmation. The process ends after that report.
    pub(super) fn has_doubted(&self, process: u32) -> bool {
        self.doubts().any(|doubt| doubt.processes.contains(&process))
    }

    /// The process that reported that replicas differ, if no process on another node has confirmed it, and a message for users.
    pub(super) fn unconfirmed_doubt(&self) -> Option<(u32, String)> {
        let doubt = self.doubts().next()?;
        let (process, step) = (*doubt.processes.first()?, step_of(&doubt.body)?);
        let name = self.name_of(process);
        let words =
            format!("{name} reported that the replicas differ after step {step}, but no other node has confirmed it");
        Some((process, words))
    }

    /// If a process reported that replicas differ: the first unfinished process on another node, which could still confirm it.
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

/// Combines the reports of two processes; `None` if they contradict each other. A process whose peers had ended may know no tensors, or
/// only a part of the trail.
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
