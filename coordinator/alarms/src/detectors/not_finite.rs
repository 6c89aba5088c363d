//! Not finite: a NaN or an infinity in loss, norms or tensors. One suffices, because it spreads to every sum that it enters.
//!
//! Its origin is visible only at the first step: one step later the weights are NaN, and then everything is. The place that the alarm
//! names is the first of these that is known:
//!
//! - The origin that the run itself reports, as `not_finite/<tensor>` of a rank, after it has re-run the step that ended it.
//! - The first non-finite activation of the forward pass: all later ones only follow from it.
//! - The *last* non-finite gradient in forward order: gradients are computed from the last layer to the first. If the loss itself is
//!   not finite, all gradients follow from it, and no gradient is named.
//! - The first non-finite weight, if no gradient is non-finite.

use serde::{Deserialize, Serialize};

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::seen::Seen;
use crate::slot::{Role, Slot};

/// Number of finite steps that end the alarm. Histograms may be this rare.
const CALM: u32 = 200;

/// Largest number of series that are remembered for the first step.
const MOST: usize = 1024;

const ADVICE: &[&str] = &[
    "correct the data or the code, then resume from a checkpoint before it, if there is one",
    "check the samples of that step for values that are not finite, empty batches and divisions by zero",
    "if the norms rose before it, lower `optimizer.lr` or set `optimizer.clip_norm` and submit the run again",
];

/// The series that were not finite at the first such step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bad {
    first: Option<u32>,
    /// The slots that were not finite at the first step.
    slots: Vec<u32>,
    last: u32,
}

impl Bad {
    /// Notes that the series of slot `index` was not finite at `step`, and raises or updates the alarm.
    pub(crate) fn note(&mut self, index: usize, step: u32, seen: &Seen, board: &mut Board) {
        self.last = self.last.max(step);
        let index = index as u32;
        let is_origin = |index: &u32| seen.slots[*index as usize].role == Role::Origin;
        // A run reports the origin for the step that ended it; another number may have been non-finite earlier.
        let says_where = is_origin(&index) && !self.slots.iter().any(is_origin);
        match self.first {
            Some(first) if step > first && says_where => {}
            Some(first) if step > first => return,
            Some(first) if step == first && self.slots.len() < MOST => {}
            Some(first) if step == first => return,
            // Series may arrive late: this one was non-finite at an earlier step.
            Some(_) | None => {
                if self.first.is_some() {
                    board.antedate(Kind::NotFinite, step, seen.ms(step));
                }
                (self.first, self.slots) = (Some(step), Vec::new());
            }
        }
        self.slots.push(index);
        board.raise(self.finding(self.first.unwrap_or(step), seen));
    }

    /// Ends the alarm if the loss is finite at `step`, more than [`CALM`] steps after the last non-finite value.
    pub(crate) fn settle(&mut self, step: u32, board: &mut Board) {
        if self.first.is_some() && step > self.last.saturating_add(CALM) {
            board.end(Kind::NotFinite, None, self.last);
            *self = Self::default();
        }
    }

    pub(crate) fn rewind(&mut self, step: u32) {
        self.last = self.last.min(step);
        if self.first.is_some_and(|first| first > step) {
            *self = Self::default();
        }
    }

    fn finding(&self, since: u32, seen: &Seen) -> Finding {
        let bad: Vec<&Slot> = self.slots.iter().map(|&index| &seen.slots[index as usize]).collect();
        let of =
            |roles: &[Role]| -> Vec<&Slot> { bad.iter().copied().filter(|slot| roles.contains(&slot.role)).collect() };
        let origin = of(&[Role::Origin]).first().copied();
        let loss = of(&[Role::Loss]);
        let grads = of(&[Role::LayerGrad, Role::GradHistogram]);
        let all_grads =
            seen.slots.iter().filter(|slot| slot.role == Role::LayerGrad && slot.last == Some(since)).count()
                == of(&[Role::LayerGrad]).len();
        let activation = of(&[Role::Activation]).into_iter().min_by_key(|slot| seen.forward(slot));
        let gradient = grads.iter().copied().max_by_key(|slot| seen.forward(slot));
        let gradient = gradient.filter(|_| loss.is_empty() || !all_grads);
        let weight = of(&[Role::WeightHistogram, Role::LayerWeight]).into_iter().min_by_key(|slot| seen.forward(slot));
        let weight = weight.filter(|_| grads.is_empty());
        let tensor = origin.or(activation).or(gradient).or(weight);
        let mut parts: Vec<&Slot> = bad.iter().copied().filter(|slot| slot.key.part.is_some()).collect();
        parts.dedup_by_key(|slot| slot.key.part);
        // A reported origin names one rank, but other ranks may have had the same: no rank is called the only one.
        let only = if let ([only], None) = (&parts[..], origin) { Some(*only) } else { None };
        let part = only.or(origin.filter(|slot| slot.key.part.is_some()));
        let whose = |slot: &Slot| {
            let of_rank = matches!(slot.role, Role::RankNorm | Role::Origin);
            format!("{} {}", if of_rank { "rank" } else { "process" }, slot.part())
        };
        let place: Vec<String> = tensor.map(|slot| spot(slot).1).into_iter().chain(part.map(whose)).collect();
        let mut what = vec![format!("At step {since} these values were not finite: {}.", names(&bad))];
        if let Some(slot) = tensor {
            let of_rank = if origin.is_some() { part.map(|slot| format!(", in {}", whose(slot))) } else { None };
            what.push(format!("The first non-finite tensor is {}{}.", spot(slot).0, of_rank.unwrap_or_default()));
        }
        if let Some(slot) = only {
            what.push(format!(
                "Of the series that ranks or processes have of their own, only that of {} was not finite.",
                whose(slot)
            ));
        }
        Finding {
            kind: Kind::NotFinite,
            subject: None,
            severity: Severity::Error,
            since,
            since_ms: seen.ms(since),
            place: (!place.is_empty()).then(|| place.join(", ")),
            series: tensor.or(part).or(loss.first().copied()).unwrap_or(bad[0]).key.clone(),
            title: "values are not finite".into(),
            what: what.join(" "),
            advice: ADVICE,
            level: 0.0,
        }
    }
}

/// A tensor in words, and its place.
fn spot(slot: &Slot) -> (String, String) {
    // The name of a reported origin contains the name of the series of its tensor.
    let name = if slot.role == Role::Origin { slot.tensor() } else { &slot.key.name };
    let Some((family, tensor)) = name.split_once('/') else {
        let words = if name == "loss" { "the loss itself".to_owned() } else { format!("the batch's {name}") };
        return (words.clone(), words);
    };
    let kind = match family {
        "activation" => "the output of module",
        "weight" | "weight_norm" => "the weight",
        "buffer" => "the buffer",
        "optimizer" => "the optimizer's",
        _ => "the gradient of",
    };
    (format!("{kind} `{tensor}`"), format!("layer `{tensor}`"))
}

/// The first four series by name, and the number of the others.
fn names(bad: &[&Slot]) -> String {
    let mut shown: Vec<String> = bad.iter().take(4).map(|slot| format!("`{}`", slot.key)).collect();
    if bad.len() > 4 {
        shown.push(format!("{} more", bad.len() - 4));
    }
    shown.join(", ")
}
