//! Silent corruption: replicas that should be equal differ. The majority decides which process was wrong. Without a majority, the steps
//! are re-run and the results compared. The wrong device is fenced, and the run restarts from its last checkpoint.
//!
//! A process with a wrong state adds wrong gradients to the common sum, so all replicas may be wrong when the difference is found.
//! Therefore processes keep a *trail*: one number for each rank's result of each step since the replicas were last equal. After a re-run,
//! the first step that differs from the old trail shows which ranks were wrong first.
//!
//! No checkpoint contains the corruption: processes compare their states before each checkpoint, so the last one was written while all
//! replicas were equal.

use std::collections::BTreeMap;

use lockstep_common::{NodeId, RunId, world};

use super::cluster::ClusterState;
use super::node::Fence;
use super::runs::{Claim, Corruption, Grounds, Run, Verdict, bounded};
use crate::outcome::Effect;

/// Number of corruptions without a known wrong device after which a run fails.
const OPEN_LIMIT: usize = 3;

/// Maximum number of differing tensors that are stored. A few steps after the first wrong result, all tensors may differ.
const TENSORS: usize = 20;

/// The contents of a [`ReportBody::Corrupt`](super::ReportBody::Corrupt).
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) step: u64,
    pub(super) agreed: u64,
    pub(super) fingerprints: &'a [u64],
    pub(super) tensors: &'a [String],
    pub(super) trail: &'a [u64],
}

impl Run {
    /// Corruptions without a verdict, oldest first.
    pub fn open_corruptions(&self) -> impl Iterator<Item = &Corruption> {
        self.state.corruptions.iter().filter(|corruption| corruption.verdict.is_none())
    }
}

impl ClusterState {
    /// Handles a confirmed report that replicas differ: fences the wrong device if it is known, and restarts the run from its last
    /// checkpoint, or fails the run.
    pub(super) fn corrupt(
        &mut self,
        at_ms: u64,
        id: &RunId,
        process: u32,
        found: Found<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.run_mut(id) else { return };
        let (reported, processes) = (found.fingerprints.len(), run.state.placement.len());
        if reported != processes {
            let reason = format!("it reported {reported} fingerprints of {processes} processes");
            return self.fail(at_ms, id, Some(process), &reason);
        }
        let claim = |(placed, fingerprint): (&super::ProcessState, &u64)| Claim {
            node: placed.node.clone(),
            device: placed.device,
            device_name: placed.device_name.clone(),
            fingerprint: *fingerprint,
        };
        let mut now = Corruption {
            at_ms,
            generation: run.state.generation,
            step: found.step,
            agreed: found.agreed,
            tensors: found.tensors.iter().take(TENSORS).map(|name| bounded(name)).collect(),
            claims: run.state.placement.values().zip(found.fingerprints).map(claim).collect(),
            trail: found.trail.to_vec(),
            verdict: None,
        };
        let before = run.open_corruptions().filter(|before| before.step == now.step).last();
        let unstable = before.map(|before| changed_their_mind(before, &now, run.job.ranks));
        // The re-run gave the same different results on the same devices: a further re-run would decide nothing.
        let stalemate = before.is_some_and(|before| before.trail == now.trail) && unstable == Some(Vec::new());
        now.verdict = minority(&now.claims)
            .map(|wrong| Verdict { wrong, grounds: Grounds::Majority })
            .or_else(|| Some(Verdict { wrong: unstable?, grounds: Grounds::Unstable }))
            .filter(|verdict| !verdict.wrong.is_empty());
        let wrong = now.devices_wrong();
        if now.verdict.is_some() {
            now.trail = Vec::new();
        }
        run.state.corruptions.push(now);
        let nobody = |found: &&Corruption| found.verdict.as_ref().is_none_or(|verdict| verdict.wrong.is_empty());
        let unexplained = run.state.corruptions.iter().filter(nobody).count();
        if wrong.is_empty() && (stalemate || unexplained >= OPEN_LIMIT) {
            let reason = undecided(run, stalemate);
            return self.fail(at_ms, id, None, &reason);
        }
        self.leave_generation(id, effects);
        self.fence_wrong(at_ms, id, found.step, &wrong, effects);
        self.place_queued();
    }

    /// Decides open corruptions at `step`: in a re-run all processes had `fingerprint` after `step`, and computed `trail`.
    pub(super) fn agreed(
        &mut self,
        at_ms: u64,
        id: &RunId,
        step: u64,
        fingerprint: u64,
        trail: &[u64],
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.run_mut(id) else { return };
        let ranks = run.job.ranks;
        let placement = &run.state.placement;
        let places: Vec<(&NodeId, u32)> = placement.values().map(|placed| (&placed.node, placed.device)).collect();
        let mut wrong = Vec::new();
        for found in run.state.corruptions.iter_mut().filter(|found| found.verdict.is_none() && found.step == step) {
            // A single device that took part in the corruption repeats its own results, which proves nothing.
            let took_part =
                |place: &(&NodeId, u32)| found.claims.iter().any(|claim| (&claim.node, claim.device) == *place);
            if places.len() >= 2 || places.iter().any(|place| !took_part(place)) {
                found.verdict = Some(Verdict {
                    wrong: wrong_by_replay(found, fingerprint, trail, ranks),
                    grounds: Grounds::Replay,
                });
                found.trail = Vec::new();
                wrong.extend(found.devices_wrong());
            }
        }
        self.fence_wrong(at_ms, id, step, &wrong, effects);
        self.place_queued();
    }

    /// Fences devices that had a wrong state after `step` of a run.
    fn fence_wrong(
        &mut self,
        at_ms: u64,
        id: &RunId,
        step: u64,
        devices: &[(NodeId, String)],
        effects: &mut Vec<Effect>,
    ) {
        for (node, device) in devices {
            self.fence(node, device, &Fence { at_ms, wrong: Some((id.clone(), step)) }, effects);
        }
    }
}

/// Indices of the claims that differ from the fingerprint of more than half of the claims; `None` if there is no such majority.
fn minority(claims: &[Claim]) -> Option<Vec<u32>> {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for claim in claims {
        *votes.entry(claim.fingerprint).or_default() += 1;
    }
    let (&right, _) = votes.iter().find(|(_, votes)| **votes * 2 > claims.len())?;
    Some((0_u32..).zip(claims).filter(|(_, claim)| claim.fingerprint != right).map(|(index, _)| index).collect())
}

/// Processes whose ranks were the first to differ from the re-run. If no rank differed, processes whose final fingerprint did. Empty if
/// that is true of all processes, because then it is unknown which was wrong first.
fn wrong_by_replay(found: &Corruption, fingerprint: u64, trail: &[u64], ranks: u32) -> Vec<u32> {
    let processes = found.claims.len() as u32;
    let wrong: Vec<u32> = match first_difference(&found.trail, trail, ranks) {
        Some(of_ranks) => hosts(&of_ranks, processes, ranks),
        None => (0..processes).filter(|&index| found.claims[index as usize].fingerprint != fingerprint).collect(),
    };
    if wrong.len() < processes as usize { wrong } else { Vec::new() }
}

/// Processes of `now` whose device was the first to give other results than `before` in the same steps. Empty if that is true of all
/// processes.
fn changed_their_mind(before: &Corruption, now: &Corruption, ranks: u32) -> Vec<u32> {
    let place = |claim: &Claim| (claim.node.clone(), claim.device);
    let places = |found: &Corruption| found.claims.iter().map(place).collect::<Vec<_>>();
    let (places_before, places_now) = (places(before), places(now));
    let count = |places: &[(NodeId, u32)]| places.len() as u32;
    let changed: Vec<u32> = if let Some(of_ranks) = first_difference(&before.trail, &now.trail, ranks) {
        let was = hosts(&of_ranks, count(&places_before), ranks);
        let is = hosts(&of_ranks, count(&places_now), ranks);
        is.into_iter()
            .filter(|&process| was.iter().any(|&b| places_before[b as usize] == places_now[process as usize]))
            .collect()
    } else {
        let had = |process: u32| places_before.iter().position(|place| *place == places_now[process as usize]);
        let differs = |process: &u32| {
            had(*process).is_some_and(|b| before.claims[b].fingerprint != now.claims[*process as usize].fingerprint)
        };
        (0..count(&places_now)).filter(differs).collect()
    };
    if changed.len() < places_now.len() { changed } else { Vec::new() }
}

/// The ranks that differ in the first step in which any rank differs. Compares up to the end of the shorter trail.
fn first_difference(a: &[u64], b: &[u64], ranks: u32) -> Option<Vec<u32>> {
    let steps = a.chunks_exact(ranks as usize).zip(b.chunks_exact(ranks as usize));
    let differ = |(a, b): (&[u64], &[u64])| (0..ranks).filter(|&rank| a[rank as usize] != b[rank as usize]).collect();
    steps.map(differ).find(|ranks: &Vec<u32>| !ranks.is_empty())
}

/// The processes that host any of `ranks`.
fn hosts(of_ranks: &[u32], processes: u32, ranks: u32) -> Vec<u32> {
    (0..processes)
        .filter(|&process| of_ranks.iter().any(|rank| world::hosted(process, processes, ranks).contains(rank)))
        .collect()
}

fn undecided(run: &Run, stalemate: bool) -> String {
    let Some(last) = run.state.corruptions.last() else { return String::new() };
    let sides = (0..).zip(&last.claims).map(|(process, claim): (usize, &Claim)| {
        let Claim { node, device_name, fingerprint, .. } = claim;
        format!("process {process} on `{device_name}` of `{node}` has {fingerprint:016x}")
    });
    let sides: Vec<String> = sides.collect();
    let why = if stalemate {
        "a re-run gave the same fingerprints on the same devices".to_owned()
    } else {
        format!("{OPEN_LIMIT} times the wrong device could not be found")
    };
    let next = match run.last_checkpoint() {
        Some(last) => format!("run `coord resume {}`", last.checkpoint.short()),
        None => "submit the run again, because it has no checkpoint".to_owned(),
    };
    format!(
        "silent corruption: the replicas differ after step {} (equal after step {}): {}; {why}: take the suspect device out of use \
         with `coord fence NODE DEVICE`, and {next}",
        last.step,
        last.agreed,
        sides.join(", ")
    )
}
