//! Words on what all processes have: that they differ, or that they agree after all. Such a word can put the device of another node
//! out of use, and all processes say the same; so it counts once a process of a second node has said it, too.
//!
//! ```text
//!  first word ─ kept in the run ─ the same of another node ─────────> it counts
//!                            ├─── another word of another node ─────> transient failure: they contradict each other
//!                            └─── the others end without such a word > transient failure of the one that spoke
//! ```

use std::collections::BTreeSet;

use lockstep_common::NodeId;
use serde::{Deserialize, Serialize};

use super::runs::{Phase, Run};
use crate::command::Said;

/// Words of one generation that are kept; of more, the oldest is forgotten.
const WORDS: usize = 8;

/// A word that nobody of another node has said yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// Who said it, all on one node.
    pub processes: BTreeSet<u32>,
    /// What: [`Said::Corrupt`] or [`Said::Agreed`].
    pub said: Said,
}

/// What a word is worth.
pub(super) enum Worth {
    /// It counts, with what both witnesses know.
    Counts(Said),
    /// It waits for a witness.
    Waits,
    /// Another node says otherwise.
    Contradicted(String),
}

impl Run {
    /// Hears what `process` says of all processes after `step`.
    pub(super) fn hear(&mut self, process: u32, step: u64, said: &Said) -> Worth {
        let nodes: BTreeSet<&NodeId> = self.state.placement.values().map(|placed| &placed.node).collect();
        if nodes.len() < 2 {
            return Worth::Counts(said.clone());
        }
        let node = self.node_of(process).cloned();
        // Nobody goes on after such a word, so that a second one is about the same, whatever its step.
        let doubts = |said: &Said| matches!(said, Said::Corrupt { .. });
        let same = |other: &Said| step_of(other) == Some(step) || (doubts(other) && doubts(said));
        let of_others = |word: &&Word| same(&word.said) && self.speaks_from(word) != node.as_ref();
        let Some(word) = self.state.words.iter().find(of_others) else {
            self.keep(process, said);
            return Worth::Waits;
        };
        match both(&word.said, said) {
            Some(said) => Worth::Counts(said),
            None => Worth::Contradicted(format!(
                "{} and {} say different things of what all processes have after step {step}",
                word.processes.first().map_or_else(String::new, |first| self.name_of(*first)),
                self.name_of(process)
            )),
        }
    }

    fn keep(&mut self, process: u32, said: &Said) {
        let words = &mut self.state.words;
        if let Some(word) = words.iter_mut().find(|word| both(&word.said, said).is_some()) {
            word.processes.insert(process);
            return;
        }
        if words.len() == WORDS {
            words.remove(0);
        }
        words.push(Word { processes: BTreeSet::from([process]), said: said.clone() });
    }

    fn speaks_from(&self, word: &Word) -> Option<&NodeId> {
        self.node_of(*word.processes.first()?)
    }

    /// Whether `process` has said that all differ: it ends after that, and its word waits for a witness.
    pub(super) fn has_doubted(&self, process: u32) -> bool {
        self.doubts().any(|word| word.processes.contains(&process))
    }

    /// The process that said that all differ, if nobody of another node did, and that in words.
    pub(super) fn unheard_doubt(&self) -> Option<(u32, String)> {
        let word = self.doubts().next()?;
        let (process, step) = (*word.processes.first()?, step_of(&word.said)?);
        let name = self.name_of(process);
        let words =
            format!("{name} says that the processes differ after step {step}, and none of another node says so");
        Some((process, words))
    }

    /// The first process of another node than those that said that all differ, if there is one that has not finished.
    pub(super) fn silent_witness(&self) -> Option<u32> {
        let from = self.speaks_from(self.doubts().next()?)?;
        let mut others = self.state.placement.iter().filter(|(_, placed)| placed.node != *from);
        others.find(|(_, placed)| !matches!(placed.phase, Phase::Finished { .. })).map(|(process, _)| *process)
    }

    fn doubts(&self) -> impl Iterator<Item = &Word> {
        self.state.words.iter().filter(|word| matches!(word.said, Said::Corrupt { .. }))
    }
}

fn step_of(said: &Said) -> Option<u64> {
    match said {
        Said::Corrupt { step, .. } | Said::Agreed { step, .. } => Some(*step),
        _ => None,
    }
}

/// What two processes say, if it is the same. One whose peers were gone by then may know less of tensors and trails.
fn both(first: &Said, second: &Said) -> Option<Said> {
    match (first, second) {
        (
            Said::Corrupt { step, agreed, fingerprints, tensors, trail },
            Said::Corrupt {
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
            same.then(|| Said::Corrupt {
                step: *step,
                agreed: *agreed,
                fingerprints: fingerprints.clone(),
                tensors: tensors.clone(),
                trail,
            })
        }
        (Said::Agreed { .. }, Said::Agreed { .. }) => (first == second).then(|| first.clone()),
        _ => None,
    }
}
